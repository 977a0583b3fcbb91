"""`maskhand predict` on images of real hands with annotated 3D joints: error, confidence and speed, by method.

    python benchmarks/real_hands.py FOLDER [--model DIR] [--known-camera] [--given-boxes]

FOLDER is a shard set, or holds `annotations.json`, a list of {image, side, K_px (3, 3), joints_cam_m (21, 3), joints_px
(21, 2)}, OpenPose joint order, OpenCV camera axes, meters, and the images. Hands are found in the whole image, the best
find counts, whatever side it has, and a hand that is not found counts as 60 mm; with --given-boxes each annotated hand
is looked at in its box, as one of its side. PA-MPJPE over the annotated joints: similarity alignment without mirroring.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from maskhand.conventions import Side
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.metrics.calibration import reliability
from maskhand.models.bundle import ModelBundle
from maskhand.predict import METHODS, Method, predict_hands, read_photo
from maskhand.predict.photo import decode_photo
from maskhand.shards.reader import ShardSet

NOT_FOUND_MM = 60.0


@dataclass(frozen=True)
class RealHand:
    """An annotated hand."""

    image: Path | bytes
    side: Side
    K_px: np.ndarray
    joints_cam_m: np.ndarray
    """(21, 3)."""
    joints_px: np.ndarray
    """(21, 2)."""
    valid: np.ndarray
    """(21,) bool: joints with an annotation in 3D."""
    box_xyxy_px: np.ndarray

    def pixels(self) -> np.ndarray:
        return read_photo(self.image) if isinstance(self.image, Path) else decode_photo(self.image, "image")


def read_hands(folder: Path) -> Iterator[RealHand]:
    if (folder / "images").is_dir():
        shards = ShardSet.open(str(folder))
        for row in shards.at(range(len(shards))):
            hand = row.sample
            joints_m, points, valid = hand.joints_cam_m, hand.joints_2d_px, hand.joints_3d_valid
            if hand.camera is None or joints_m is None or points is None or valid is None:
                raise SystemExit(f"{hand.key}: 3D joints, 2D joints and a camera are needed")
            yield RealHand(hand.image, hand.side, hand.camera.K_px, joints_m, points, valid > 0, hand.box_xyxy_px)
        return
    for hand in json.loads((folder / "annotations.json").read_text()):
        points = np.array(hand["joints_px"])
        yield RealHand(
            folder / hand["image"], hand["side"], np.array(hand["K_px"]), np.array(hand["joints_cam_m"]), points,
            np.ones(21, bool), np.concatenate([points.min(0), points.max(0)]),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="an exported model, for the methods that ask a network")
    parser.add_argument("--known-camera", action="store_true", help="give the annotated focal length")
    parser.add_argument("--given-boxes", action="store_true", help="give each hand's box and side")
    parser.add_argument("--assets", default="workspace/assets", help="where the detector's files are")
    options = parser.parse_args()
    hands = list(read_hands(options.folder))
    bundle = None if options.model is None else ModelBundle.load(options.model)
    for method in METHODS if bundle else METHODS[:1]:
        report(method, options, hands, bundle)


def report(method: Method, options: argparse.Namespace, hands: list[RealHand], bundle: ModelBundle | None) -> None:
    errors, within, expected, wrong_side, seconds = [], [], [], 0, 0.0
    more, epe_px, absolute_mm = 0, [], []
    for hand in hands:
        image = hand.pixels()
        focal = float(hand.K_px[0, 0]) if options.known_camera else None
        boxes, side = ([tuple(hand.box_xyxy_px)], hand.side) if options.given_boxes else (None, None)
        start = time.process_time()
        found = predict_hands(image, bundle, boxes, side, method=method, focal_px=focal, assets=options.assets)
        seconds += time.process_time() - start
        if not found:
            errors.append(np.where(hand.valid, NOT_FOUND_MM, np.nan))
            within.append(np.full(21, np.nan))
            expected.append(np.full(21, np.nan))
            continue
        best, more = found[0], more + len(found) - 1
        wrong_side += best.side != hand.side
        truth, seen = hand.joints_cam_m[hand.valid], best.joints_cam_m[hand.valid]
        error = np.full(21, np.nan)
        error[hand.valid] = 1e3 * distances(procrustes_align(seen[None], truth[None], reflection=False), truth[None])[0]
        errors.append(error)
        within.append(best.p_within_10mm)
        expected.append(best.joint_error_mm)
        epe_px.append(np.linalg.norm(best.joints_px - hand.joints_px, axis=1)[hand.valid].mean())
        absolute_mm.append(1e3 * np.linalg.norm(seen - truth, axis=1).mean())
    error, p, mm = (np.stack(values) for values in (errors, within, expected))
    by_hand = np.nanmean(error, axis=1)
    boot = np.random.default_rng(0).choice(by_hand, (2000, len(by_hand))).mean(1)
    low, high = np.percentile(boot, [2.5, 97.5])
    print(
        f"{method}: PA-MPJPE {by_hand.mean():.2f} mm (95 % {low:.2f} to {high:.2f}), median {np.median(by_hand):.2f}, "
        f"p95 {np.percentile(by_hand, 95):.2f}; {len(by_hand)} hands, {len(epe_px)} found, {wrong_side} of the wrong "
        f"side, {more} more finds; EPE {np.mean(epe_px):.1f} px, absolute {np.mean(absolute_mm):.1f} mm; "
        f"{seconds / len(hands):.3f} s of CPU an image"
    )
    if np.isfinite(p).all() and np.isfinite(error).all():
        right = error <= 10
        quality = reliability(p.ravel(), right.ravel())
        print(
            f"  p_within_10mm: mean {p.mean():.3f}, true {right.mean():.3f}, ECE "
            f"{quality.expected_calibration_error:.3f}; joint_error_mm: mean {mm.mean():.1f}, true {error.mean():.1f}; "
            f"Spearman with the error: hands {spearmanr(mm.mean(1), by_hand)[0]:.2f}, "
            f"joints {spearmanr(mm.ravel(), error.ravel())[0]:.2f}"
        )


if __name__ == "__main__":
    main()
