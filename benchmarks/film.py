"""Tracked and smoothed film against one frame at a time, on rendered film whose hands are known.

    python benchmarks/film.py --films 4 --frames 120

Each film has two hands that open, close and turn, cross in the middle, and are covered by a card for a moment; it is
written as H.264 and read again. Errors are means over the hand-frames that the prediction of single frames has found,
so that all rows speak of the same ones; accelerations over three such frames in a row, of joints relative to the wrist
(as VIBE and its successors do), in millimeters per frame squared. Times are CPU times of one thread, without drawing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import machine
from scipy.optimize import linear_sum_assignment

from maskhand.film.options import SMOOTHINGS, Smoothing
from maskhand.film.smoothing import smooth
from maskhand.film.tracked_film import TrackedFilm, track_film
from maskhand.film.video import FilmWriter, read_frames
from maskhand.metrics.samples import pa_mpjpe
from maskhand.models.bundle import ModelBundle
from maskhand.predict.hands import predict_images
from maskhand.predict.records import PredictedHand
from maskhand.shipped_models import OPEN
from maskhand.steps.models import model_folder
from maskhand.synth.freihand_hands import open_studio
from maskhand.synth.moving_hands import HandFilm, script_film, shoot
from maskhand.workspace import Workspace

SIZE_PX, RATE = (480, 360), 30.0
SAME_PLACE = 0.5
"""A predicted hand is the true one when their joints are nearer than this on average, in true hand sizes."""


@dataclass(frozen=True)
class Series:
    """What one method of prediction says about the H true hands of a film of T frames."""

    joints_m: np.ndarray
    """(H, T, 21, 3) camera axes; NaN where the hand was not found."""
    side_right: np.ndarray
    """(H, T) bool."""
    track: np.ndarray
    """(H, T) number of the track, -1 without."""
    more: int
    """Predicted hands that are none."""
    seconds: float

    @property
    def found(self) -> np.ndarray:
        """(H, T)."""
        return np.isfinite(self.joints_m).all((2, 3))

    @property
    def switches(self) -> int:
        """How often a true hand's track changed."""
        numbers = [row[row >= 0] for row in self.track]
        return int(sum((np.diff(row) != 0).sum() for row in numbers))


def series(film: HandFilm, hands: Sequence[Sequence[tuple[int, PredictedHand]]], seconds: float) -> Series:
    """From (track, hand) pairs of each frame, matched to the true hands by their places in the image."""
    count, frames = len(film.hands), len(film.times_s)
    joints = np.full((count, frames, 21, 3), np.nan)
    side_right, track, more = np.zeros((count, frames), bool), np.full((count, frames), -1), 0
    truth_px = np.stack([film.joints_px(hand) for hand in film.hands])
    for frame, here in enumerate(hands):
        size = np.ptp(truth_px[:, frame], axis=1).max(1)
        apart = np.array(
            [
                [np.linalg.norm(hand.joints_px - truth, axis=1).mean() for _, hand in here]
                for truth in truth_px[:, frame]
            ]
        )
        apart = apart.reshape(count, len(here)) / size[:, None]
        pairs = [(t, p) for t, p in zip(*linear_sum_assignment(apart), strict=True) if apart[t, p] < SAME_PLACE]
        more += len(here) - len(pairs)
        for t, p in pairs:
            joints[t, frame] = here[p][1].joints_cam_m
            side_right[t, frame] = here[p][1].side == film.hands[t].side
            track[t, frame] = here[p][0]
    return Series(joints, side_right, track, more, seconds)


def one_by_one(path: Path, film: HandFilm, bundle: ModelBundle | None, assets: Path) -> Series:
    """Every frame as if it were a photo."""
    start, hands = time.process_time(), []
    method = "refine" if bundle else "fit"
    for frame in read_frames(path):
        (found,) = predict_images([frame.image_rgb], bundle, method=method, cameras=[film.K_px], assets=assets)
        hands.append([(-1, hand) for hand in found])
    return series(film, hands, time.process_time() - start)


def tracked(path: Path, film: HandFilm, bundle: ModelBundle | None, assets: Path) -> tuple[TrackedFilm, float]:
    """The film's tracks without smoothing, and seconds."""
    start = time.process_time()
    method = "refine" if bundle else "fit"
    result = track_film(path, bundle, method=method, K_px=film.K_px, smoothing="none", assets=assets)
    return result, time.process_time() - start


def smoothed_series(film: HandFilm, result: TrackedFilm, smoothing: Smoothing, seconds: float) -> Series:
    """The same tracks, smoothed; seconds: of their tracking."""
    start = time.process_time()
    tracks = tuple(replace(track, motion=smooth(track.motion, smoothing)) for track in result.tracks)
    hands: list[list[tuple[int, PredictedHand]]] = [[] for _ in film.times_s]
    for item in replace(result, tracks=tracks, smoothing=smoothing).hands():
        hands[item.frame].append((item.track, item.hand))
    return series(film, hands, seconds + time.process_time() - start)


def relative(joints_m: np.ndarray) -> np.ndarray:
    return joints_m - joints_m[..., :1, :]


def accelerations_mm(joints_m: np.ndarray) -> np.ndarray:
    """(H, T, 21, 3) -> (H, T - 2, 21, 3) millimeters per frame squared."""
    return 1e3 * (joints_m[:, 2:] - 2 * joints_m[:, 1:-1] + joints_m[:, :-2])


def sums(film: HandFilm, predicted: Series, reference: Series) -> dict[str, tuple[float, float]]:
    """Totals and counts of each figure for one film; errors where the reference has found the hand too."""
    truth = np.stack([hand.joints_cam_m for hand in film.hands])
    covered = np.stack([hand.covered for hand in film.hands])
    both = predicted.found & reference.found
    pa = 1e3 * pa_mpjpe(predicted.joints_m[both], truth[both])
    root = 1e3 * np.linalg.norm(relative(predicted.joints_m[both]) - relative(truth[both]), axis=-1).mean(1)
    three = both[:, 2:] & both[:, 1:-1] & both[:, :-2]
    off = np.linalg.norm(
        accelerations_mm(relative(predicted.joints_m)) - accelerations_mm(relative(truth)), axis=-1
    ).mean(2)
    moved = np.linalg.norm(accelerations_mm(predicted.joints_m) - accelerations_mm(truth), axis=-1).mean(2)
    hidden = covered & predicted.found
    hidden_pa = 1e3 * pa_mpjpe(predicted.joints_m[hidden], truth[hidden])
    return {
        "found": (float((predicted.found & ~covered).sum()), float((~covered).sum())),
        "side": (float((predicted.side_right & predicted.found).sum()), float(predicted.found.sum())),
        "PA": (float(pa.sum()), float(len(pa))),
        "root": (float(root.sum()), float(len(root))),
        "accel": (float(off[three].sum()), float(three.sum())),
        "accel_cam": (float(moved[three].sum()), float(three.sum())),
        "covered": (float(len(hidden_pa)), float(covered.sum())),
        "covered_PA": (float(hidden_pa.sum()), float(len(hidden_pa))),
        "switches": (float(predicted.switches), 1.0),
        "more": (float(predicted.more), 1.0),
        "rate": (float(len(film.times_s)), predicted.seconds),
    }


def write_film(path: Path, film: HandFilm, seed: int) -> None:
    with FilmWriter(path, RATE) as writer:
        for time_s, image in zip(film.times_s, shoot(open_studio(), film, seed), strict=True):
            writer.write(image, float(time_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--seed", type=int, default=100, help="of the first film")
    parser.add_argument("--fit", action="store_true", help="without the open model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bundle = None if options.fit else ModelBundle.load(model_folder(Workspace.at(), OPEN))
    assets = Workspace.at().assets
    totals: dict[str, list[dict[str, tuple[float, float]]]] = {}
    for seed in range(options.seed, options.seed + options.films):
        film = script_film(seed, options.frames, RATE, SIZE_PX)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "film.mp4")
            write_film(path, film, seed)
            reference = one_by_one(path, film, bundle, assets)
            result, seconds = tracked(path, film, bundle, assets)
            by_method = {"one frame at a time": reference}
            by_method |= {
                f"tracked, smoothing {smoothing}": smoothed_series(film, result, smoothing, seconds)
                for smoothing in SMOOTHINGS
            }
        for name, predicted in by_method.items():
            totals.setdefault(name, []).append(sums(film, predicted, reference))
        print(f"film {seed}: {reference.seconds:.0f} s one by one, {seconds:.0f} s tracked", flush=True)
    print(f"{machine()}; {options.films} films of {options.frames} frames, {SIZE_PX[0]} x {SIZE_PX[1]}, 2 hands")
    print(
        "| | found | side right | PA-MPJPE mm | MPJPE mm | acceleration error mm/frame² | in the camera | "
        "covered: found, PA-MPJPE mm | changes of number | false hands | frames/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, films in totals.items():
        pooled = {key: [sum(film[key][k] for film in films) for k in (0, 1)] for key in films[0]}
        mean = {key: total / max(count, 1e-9) for key, (total, count) in pooled.items()}
        numbered = "–" if name.startswith("one") else f"{pooled['switches'][0]:.0f}"
        print(
            f"| {name} | {mean['found']:.1%} | {mean['side']:.1%} | {mean['PA']:.2f} | {mean['root']:.2f} | "
            f"{mean['accel']:.2f} | {mean['accel_cam']:.2f} | {mean['covered']:.0%}, {mean['covered_PA']:.1f} | "
            f"{numbered} | {pooled['more'][0]:.0f} | {mean['rate']:.2f} |"
        )


if __name__ == "__main__":
    main()
