"""Fit the estimated hands of sign language clips and write them as a pose-only file, from the repository's root:

    pip install pose-format
    pip download --no-deps spoken-to-signed==0.4.0 && unzip spoken_to_signed-*.whl -d signs
    python -m tools.sign_poses signs --out workspace/raw/freihand_synth/mocap.npz [--join mocap.npz]

The package (MIT, ZurichNLP) has 600 clips of finger spelling in 19 sign languages, with MediaPipe's estimate of 17,367
hands: x, y in pixels and a depth. Bones of these estimates differ in length by a quarter, so hands are fitted to them
within the joint limits; a fit counts as `maskhand annotate mano` counts those of a detector's keypoints. Nothing of the
package is in the repository.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import Detections
from maskhand.annotate.fit.detected import RELATIVE_NOISE_M, observe, with_relative
from maskhand.annotate.fit.fitter import Fits, ManoFitter
from maskhand.annotate.fit.hands import MAX_BETA, MAX_RESIDUAL_OF_HAND, MIN_HAND_PX
from maskhand.arrays import Array, Array64
from maskhand.conventions import BONES, MIRROR_POINT, NUM_JOINTS, OPENPOSE_FROM_MANO_AND_TIPS, Side
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.loading.poses import read_mocap
from maskhand.replacement import replacement

DEPTH_FACTOR = 1.4
"""On the depth of these estimates: with 1.2 to 1.5 their bones differ least in length."""
CHUNK = 1024
_COMPONENTS: dict[str, Side] = {"LEFT_HAND_LANDMARKS": "left", "RIGHT_HAND_LANDMARKS": "right"}


@dataclass(frozen=True)
class EstimatedHands:
    """N hands of clips."""

    points_px: Array
    """(N, 21, 3) OpenPose order; x and y in the image, depth behind the wrist."""
    sides: tuple[Side, ...]
    sizes_px: Array
    """(N, 2) width and height of their frames."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with .pose files below it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="a pose-only file whose poses come first in --out")
    options = parser.parse_args()
    hands = read_clips(sorted(options.folder.rglob("*.pose")))
    fitter = ManoFitter(load_hand_model(str(default_hand_path("right"))))
    poses, betas = [], []
    for first in range(0, len(hands.sides), CHUNK):
        fits = fit(fitter, hands, slice(first, first + CHUNK))
        good = is_good(fits)
        poses.append(fits.pose_aa[good].reshape(-1, 48))
        betas.append(fits.betas[good])
        print(f"{min(first + CHUNK, len(hands.sides)):,} of {len(hands.sides):,}", end="\r", flush=True)
    count = sum(map(len, poses))
    if options.join:
        joined = read_mocap(str(options.join))
        poses.insert(0, joined.pose_aa.reshape(-1, 48))
        betas.insert(0, joined.betas)
    with replacement(options.out) as file:
        np.savez(file, hand_pose=np.float32(np.concatenate(poses)), betas=np.float32(np.concatenate(betas)))
    print(
        f"{options.out}: {count:,} of {len(hands.sides):,} hands are fitted well; {sum(map(len, poses)):,} poses in all"
    )


def read_clips(files: list[Path]) -> EstimatedHands:
    """The hands of all frames; SystemExit where the reader is missing or there is none."""
    try:
        from pose_format import Pose
    except ImportError:
        raise SystemExit(".pose files are read by pose-format (MIT); pip install pose-format") from None
    points, sides, sizes = [], list[Side](), []
    for file in files:
        pose, first = Pose.read(file.read_bytes()), 0
        size = (pose.header.dimensions.width, pose.header.dimensions.height)
        for component in pose.header.components:
            rows = slice(first, first + len(component.points))
            first = rows.stop
            if component.name not in _COMPONENTS:
                continue
            found = (np.asarray(pose.body.confidence)[:, 0, rows] > 0).all(1)
            hand = np.asarray(np.ma.getdata(pose.body.data), np.float64)[found, 0, rows]
            hand[..., 2] = (hand[..., 2] - hand[:, :1, 2]) * size[0]  # depths alone are in widths of the frame
            points.append(hand)
            sides += [_COMPONENTS[component.name]] * len(hand)
            sizes += [size] * len(hand)
    if not sides:
        raise SystemExit("no hand in .pose files below this folder; give the unpacked wheel of spoken-to-signed")
    return EstimatedHands(np.concatenate(points), tuple(sides), np.array(sizes))


def fit(fitter: ManoFitter, hands: EstimatedHands, rows: slice) -> Fits:
    """Right hands; left ones are mirrored."""
    points, sides, sizes = hands.points_px[rows].copy(), hands.sides[rows], hands.sizes_px[rows]
    count = len(points)
    detections = Detections(
        keypoints_px=points[..., :2].astype(np.float32),
        confidence=np.ones((count, NUM_JOINTS), np.float32),
        presence=np.ones(count, np.float32),
        right_probability=np.array([side == "right" for side in sides], np.float32),
    )
    cameras = np.stack([assumed_camera((int(width), int(height))) for width, height in sizes])
    points -= points[:, :1]
    points[..., 2] *= DEPTH_FACTOR
    points[[side == "left" for side in sides]] *= MIRROR_POINT
    joints_m = points * _meters_per_px(fitter, points)[:, None, None]
    return fitter.fit(with_relative(observe(detections, sides, sizes, cameras), joints_m, RELATIVE_NOISE_M))


def is_good(fits: Fits) -> Array:
    """(N,) bool."""
    near = fits.residual_px < MAX_RESIDUAL_OF_HAND * fits.hand_px
    return near & (fits.hand_px >= MIN_HAND_PX) & (np.abs(fits.betas).max(1) <= MAX_BETA)


def _meters_per_px(fitter: ManoFitter, points: Array64) -> Array64:
    """(N,) with which the bones are those of the mean hand, by least squares."""
    rest_m = np.concatenate([fitter.skeleton.joints_m, fitter.skeleton.tips_m])[list(OPENPOSE_FROM_MANO_AND_TIPS)]
    start, end = np.array(BONES).T
    bones_m = np.linalg.norm(rest_m[start] - rest_m[end], axis=-1)
    bones_px = np.linalg.norm(points[:, start] - points[:, end], axis=-1)
    return np.asarray((bones_px * bones_m).sum(1) / np.square(bones_px).sum(1))


if __name__ == "__main__":
    main()
