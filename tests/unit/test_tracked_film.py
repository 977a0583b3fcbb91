"""A film of two hands with known truth, seen by a detector that trembles, errs about sides and loses hands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.film import run as film_run
from maskhand.film.drawing import draw_frame
from maskhand.film.options import Smoothing
from maskhand.film.records import FilmHand
from maskhand.film.smoothing import motion_of, smooth
from maskhand.film.tracked_film import TrackedFilm, track_film
from maskhand.film.video import FilmWriter, film_facts, read_frames
from maskhand.geometry2d import tight_box
from maskhand.hand.layer import ManoLayer
from maskhand.metrics.samples import pa_mpjpe
from maskhand.predict.rows import SCHEMA_FILE
from maskhand.render import error_rgb
from maskhand.synth.moving_hands import HandFilm, script_film
from support.predicted_hands import SIZE_PX, predicted_hands

FRAMES, SIZE = 60, (320, 240)
GRAY_PER_FRAME = 4


class Trembling:
    """A finder that knows the truth and spoils it; frames say their number by their brightness."""

    def __init__(self, film: HandFilm, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.frames: list[list[HandBox]] = [[] for _ in film.times_s]
        for hand in film.hands:
            joints_px = film.joints_px(hand)
            for k in np.flatnonzero(~hand.covered):
                self.frames[k].append(self._seen(film, hand.side, hand.joints_cam_m[k], joints_px[k], rng))

    @staticmethod
    def _seen(film: HandFilm, side: str, joints_m: np.ndarray, joints_px: np.ndarray, rng) -> HandBox:
        meters_per_px = joints_m[0, 2] / film.K_px[0, 0]
        points = joints_px + rng.normal(0, 1.0, (21, 2))
        world = joints_m - joints_m.mean(0) + rng.normal(0, 0.004, (21, 3))
        right = rng.uniform(0.7, 1.0) if rng.random() > 0.15 else rng.uniform(0.2, 0.5)
        one = np.ones(1, np.float32)
        detection = Detections(
            points[None].astype(np.float32),
            np.full((1, 21), 0.9, np.float32),
            one,
            one * np.float32(right if side == "right" else 1 - right),
            z_px=((world[:, 2] - world[0, 2]) / meters_per_px / 2.5)[None].astype(np.float32),
            world_m=world[None].astype(np.float32),
        )
        return HandBox(tight_box(points), "right" if detection.right_probability[0] > 0.5 else "left", 0.9, detection)

    def find(self, image: np.ndarray, max_hands: int = 10) -> list[HandBox]:
        return self.frames[round(float(image.mean()) / GRAY_PER_FRAME)]

    def search(self, image: np.ndarray, known_px: Sequence[np.ndarray] = ()) -> list[HandBox]:
        return self.find(image)

    def follow(self, image: np.ndarray, keypoints_px: np.ndarray) -> HandBox | None:
        apart = [(float(np.abs(h.keypoints_px - keypoints_px).mean()), k) for k, h in enumerate(self.find(image))]
        return self.find(image)[min(apart)[1]] if apart and min(apart)[0] < 20 else None


@pytest.fixture(scope="module")
def truth() -> HandFilm:
    return script_film(7, FRAMES, 30.0, SIZE)


@pytest.fixture(scope="module")
def path(truth: HandFilm, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "two.mp4"
    with FilmWriter(path, 30) as film:
        for k, time_s in enumerate(truth.times_s):
            film.write(np.full((SIZE[1], SIZE[0], 3), GRAY_PER_FRAME * k, np.uint8), float(time_s))
    return path


@pytest.fixture(scope="module")
def tracked(truth: HandFilm, path: Path) -> TrackedFilm:
    return track_film(path, None, K_px=truth.K_px, smoothing="none", assets=path.parent, finder=Trembling(truth))


def smoothed(tracked: TrackedFilm, smoothing: Smoothing) -> list[FilmHand]:
    tracks = tuple(replace(track, motion=smooth(track.motion, smoothing)) for track in tracked.tracks)
    return list(replace(tracked, tracks=tracks, smoothing=smoothing).hands())


def errors(truth: HandFilm, hands: Sequence[FilmHand]) -> tuple[float, float, float]:
    """PA-MPJPE in mm of seen and of filled hands, and the error of the acceleration in mm per frame squared."""
    pa: dict[bool, list[float]] = {True: [], False: []}
    off = []
    for number, side in enumerate(("right", "left")):
        true = truth.hands[number].joints_cam_m
        mine = [item for item in hands if item.hand.side == side]
        joints = np.full_like(true, np.nan)
        for item in mine:
            joints[item.frame] = item.hand.joints_cam_m
            pa[item.seen].append(1e3 * pa_mpjpe(item.hand.joints_cam_m[None], true[item.frame][None])[0])
        difference = (joints - joints[:, :1]) - (true - true[:, :1])
        wrong = np.linalg.norm(difference[2:] - 2 * difference[1:-1] + difference[:-2], axis=2).mean(1)
        off.append(1e3 * wrong[np.isfinite(wrong)])
    filled = float(np.mean(pa[False])) if pa[False] else np.nan
    return float(np.mean(pa[True])), filled, float(np.concatenate(off).mean())


def test_two_hands_stay_two_hands_of_their_sides(truth: HandFilm, tracked: TrackedFilm) -> None:
    assert sorted(track.side for track in tracked.tracks) == ["left", "right"]
    for track in tracked.tracks:
        hand = truth.hands[0 if track.side == "right" else 1]
        assert track.seen.sum() >= 0.9 * (~hand.covered).sum()
        assert {p.side for p in track.predicted if p is not None} == {track.side}, "early frames follow the vote too"
        assert all(len(p.vertices_cam_m) == 0 for p in track.predicted if p is not None)


def test_smoothing_calms_the_hands_and_moves_them_nearer(truth: HandFilm, tracked: TrackedFilm) -> None:
    raw, causal, whole = (errors(truth, smoothed(tracked, smoothing)) for smoothing in ("none", "causal", "whole"))
    assert whole[0] < raw[0] and causal[0] < 1.3 * raw[0]
    assert whole[2] < 0.3 * raw[2] and causal[2] < 0.6 * raw[2]
    assert np.isnan(raw[1]) and whole[1] < 2 * whole[0], "the covered hand goes on as it moved"
    filled = [item for item in smoothed(tracked, "whole") if not item.seen]
    assert filled and all(np.isnan(item.hand.joint_error_mm).all() for item in filled)


def test_without_smoothing_hands_are_the_predicted_ones(tracked: TrackedFilm) -> None:
    """Also those of the left hand: parameters, mesh and place are joined again as they were taken apart."""
    layer = ManoLayer.from_default()
    for item in [*smoothed(tracked, "none")[:6], *smoothed(tracked, "none")[-6:]]:
        track = next(t for t in tracked.tracks if t.number == item.track)
        original = track.predicted[track.frames.tolist().index(item.frame)]
        assert original is not None
        for name in ("pose_aa", "betas", "transl_cam_m", "joints_cam_m"):
            np.testing.assert_allclose(getattr(item.hand, name), getattr(original, name), atol=2e-5)
        np.testing.assert_allclose(item.hand.joints_px, original.joints_px, atol=0.02)
        tip = item.hand.vertices_cam_m[layer.tip_ids.numpy()[1]]
        np.testing.assert_allclose(tip, item.hand.joints_cam_m[8], atol=1e-6)


def test_a_surer_frame_pulls_more(tracked: TrackedFilm) -> None:
    track = tracked.tracks[0]
    hands = [hand for hand in track.predicted if hand is not None][:20]
    bad = replace(hands[10], pose_aa=hands[10].pose_aa + np.array([0.3, 0, 0]))
    times = np.arange(20) / 30

    def pulled(error_mm: float) -> float:
        spoiled = [*hands[:10], replace(bad, joint_error_mm=np.full(21, error_mm)), *hands[11:]]
        good, off = (smooth(motion_of(h, times), "whole").rotmats[10] for h in (hands, spoiled))
        return float(np.abs(good - off).max())

    assert pulled(30.0) < pulled(5.0)


@pytest.fixture
def known_finder(truth: HandFilm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_run, "HandFinder", lambda assets: Trembling(truth))
    monkeypatch.setattr(film_run, "FRAMES_AT_ONCE", 5)


def test_a_run_has_a_film_and_rows_and_goes_on_where_it_was_killed(
    truth: HandFilm, path: Path, tmp_path: Path, known_finder: None
) -> None:
    options = {"every": 3, "focal_px": float(truth.K_px[0, 0]), "assets": tmp_path}
    result = film_run.predict_film(path, None, tmp_path / "whole", **options)
    (overlay,) = result.files
    shown = list(read_frames(overlay))
    assert overlay.name == "two_overlay.mp4" and film_facts(overlay).size_px == SIZE
    np.testing.assert_allclose([f.time_s for f in shown], truth.times_s[::3], atol=1e-4)
    assert np.std(shown[0].image_rgb) > 5, "hands are drawn on the gray frames"
    rows = list(result.rows())
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    assert [error.message for row in rows for error in validator.iter_errors(row)] == []
    assert {row["frame"] for row in rows} == set(range(0, FRAMES, 3)) and len({row["track"] for row in rows}) == 2
    table = pq.read_table(tmp_path / "whole" / "hands.parquet")
    assert table["track"].to_pylist() == [row["track"] for row in rows] and False in table["seen"].to_pylist()

    sealed = 0

    def killed(done: float, total: float, text: str = "") -> None:
        nonlocal sealed
        sealed += "left" in text
        if sealed == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film_run.predict_film(path, None, tmp_path / "killed", progress=killed, **options)
    assert not (tmp_path / "killed" / "hands.jsonl").exists()
    film_run.predict_film(path, None, tmp_path / "killed", **options)
    for name in ("hands.jsonl", "hands.parquet", "two_overlay.mp4"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_film_that_breaks_off_keeps_its_beginning(path: Path, tmp_path: Path, known_finder: None) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film at all")
    (row,) = film_run.predict_film(broken, None, tmp_path / "out", assets=tmp_path).rows()
    assert row["status"] == "unreadable" and "not a film" in row["reason"]


def test_joints_have_the_color_of_their_expected_error_where_a_hand_was_seen() -> None:
    hand = predicted_hands()[0]
    between = np.linalg.norm(hand.joints_px[:, None] - hand.joints_px, axis=-1) + 100 * np.eye(21)
    apart = np.flatnonzero(between.min(1) > 12)
    places = np.rint(hand.joints_px[apart]).astype(int)
    errors = np.linspace(0, 20, 21)
    plain = np.full((SIZE_PX, SIZE_PX, 3), 120, np.uint8)
    for seen in (True, False):
        drawn = draw_frame(plain, [FilmHand(0, 0.0, 0, seen, replace(hand, joint_error_mm=errors))])
        off = np.abs(drawn[places[:, 1], places[:, 0]].astype(int) - error_rgb(errors[apart]).astype(int)).max(1)
        assert len(apart) > 5 and ((off < 12).all() if seen else (off > 12).all())
