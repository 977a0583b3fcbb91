"""The errors of a keypoint detector as data: measured on hands with known pose, and added to annotated hands.

An error is stored in palm axes: rotated so that the direction from the wrist to the mean of the four knuckles (MCPs)
points up, in units of the longer side of the true joints' box in these axes. It is rotated and scaled to the hand to
which it is added. Palm axes differ by a few degrees from those of upright crops (`conventions.UPRIGHT`).
`detector_errors.npz` was measured on this project's own renders by tools/detector_errors.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import OPENPOSE_21

SHIPPED = Path(__file__).with_name("detector_errors.npz")
RELIEF_STEP, WORLD_STEP_M, CONFIDENCE_STEP = 5e-4, 1e-4, 1 / 255
"""Quantization steps of the file: 0.05 % of the hand, 0.1 mm, 1/255."""
DEPTH_GAIN = 0.28
"""The open detector's z as a fraction of the true depth; least squares: .26 on rendered hands, .29 on 60 real ones."""
_WRIST = OPENPOSE_21.index("wrist")
_KNUCKLES = [OPENPOSE_21.index(f"{finger}_mcp") for finger in ("index", "middle", "ring", "little")]


@dataclass(frozen=True)
class DetectorErrors:
    """The errors of a detector's outputs for N hands. Right hands, palm axes."""

    relief: Array
    """(N, 21, 3) error of x, y and z, in longer sides of the true joints' box; z is along the camera's z."""
    world_m: Array
    """(N, 21, 3) error of the world landmarks relative to the wrist, meters, same axes."""
    confidence: Array
    """(N, 21) 0..1 of the detector; 0 for all joints of a missed hand. Missed hands come last."""

    def __len__(self) -> int:
        return len(self.relief)

    def drawn(self, place: Array, scale: Array) -> DetectorErrors:
        """One output for each of B hands, chosen by place (B,) in 0..1, with its error multiplied by `scale` (B,).

        Confidence is presence * exp(-disagreement of two passes). The disagreement is assumed to scale like the error,
        so it becomes confidence ** scale. A missed hand has no error to scale; missed hands are drawn `scale` times as
        often as they were measured: never at 0, with their measured frequency at 1, more often beyond.
        """
        found = int((self.confidence > 0).any(axis=1).sum())
        row = (place * (found + scale * (len(self) - found))).astype(np.int64).clip(max=len(self) - 1)
        amount = scale[:, None, None]
        return DetectorErrors(
            self.relief[row] * amount, self.world_m[row] * amount, self.confidence[row] ** scale[:, None]
        )

    def added_to(self, pose: Array) -> Array:
        """(B, 21, 7) true poses, as in `HandBatch.keypoints_2d` -> simulated outputs of the detector.

        World landmarks and depth are not invented: a joint whose true values are all zero gets none, except the wrist.
        """
        side, palm_from_crop = _palm_frames(pose)
        relief, world = (errors @ palm_from_crop for errors in (self.relief, self.world_m))  # rotated back to the crop
        relief = relief * side[:, None, None]
        known: Array = np.any(pose[..., 3:], axis=2)
        known[:, _WRIST] = np.any(known, axis=1)
        depth = np.concatenate([relief[..., 2:], world], axis=2) * known[..., None]
        confidence = pose[..., 2] * self.confidence
        changed = np.concatenate(
            [pose[..., :2] + relief[..., :2], confidence[..., None], pose[..., 3:] + depth], axis=2
        )
        return changed * (confidence > 0)[..., None]


def measure_errors(detected: Array, true: Array) -> DetectorErrors:
    """The errors of detected poses (N, 21, 7), given true ones (N, 21, 7); both as in `HandBatch.keypoints_2d`."""
    order = np.argsort(~(detected[..., 2] > 0).any(axis=1), kind="stable")
    detected, true = detected[order], true[order]
    side, palm_from_crop = _palm_frames(true)
    columns = [0, 1, 3]
    transposed = palm_from_crop.transpose(0, 2, 1)
    found = (detected[..., 2] > 0)[..., None]
    return DetectorErrors(
        relief=(detected - true)[..., columns] @ transposed / side[:, None, None] * found,
        world_m=(detected - true)[..., 4:] @ transposed * found,
        confidence=detected[..., 2],
    )


def write_errors(path: str | Path, errors: DetectorErrors) -> None:
    """Write them, quantized; the confidence of a found joint is never rounded to 0."""
    with Path(path).open("wb") as file:
        np.savez_compressed(
            file,
            relief=np.rint(errors.relief / RELIEF_STEP).astype(np.int16),
            world=np.rint(errors.world_m / WORLD_STEP_M).astype(np.int16),
            confidence=np.ceil(np.clip(errors.confidence, 0, 1) / CONFIDENCE_STEP - 0.5)
            .clip(errors.confidence > 0, 255)
            .astype(np.uint8),
        )


def read_errors(path: str | Path) -> DetectorErrors:
    """Read errors written by `write_errors`."""
    with np.load(path, allow_pickle=False) as file:
        return DetectorErrors(
            file["relief"] * RELIEF_STEP, file["world"] * WORLD_STEP_M, file["confidence"] * CONFIDENCE_STEP
        )


@functools.cache
def shipped_errors() -> DetectorErrors:
    """The errors of the embedded detector on rendered hands."""
    return read_errors(SHIPPED)


def _palm_frames(pose: Array) -> tuple[Array, Array]:
    """(B, 21, 7) -> longer sides (B,) of the box of the seen joints, and rotations (B, 3, 3) to palm axes.

    The rotation is the identity if the wrist or all knuckles are not seen.
    """
    seen = pose[..., 2] > 0
    weight = seen[:, _KNUCKLES, None] / np.maximum(seen[:, _KNUCKLES].sum(axis=1), 1)[:, None, None]
    x, y = ((pose[:, _KNUCKLES, :2] - pose[:, _WRIST, None, :2]) * weight * seen[:, _WRIST, None, None]).sum(axis=1).T
    length = np.hypot(x, y)
    unknown = length == 0
    x, y, length = x, np.where(unknown, -1.0, y), np.where(unknown, 1.0, length)
    x, y = x / length, y / length
    zero, one = np.zeros_like(x), np.ones_like(x)
    palm_from_crop = np.stack([-y, x, zero, -x, -y, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)
    points = pose[..., :2] @ palm_from_crop[:, :2, :2].transpose(0, 2, 1)
    low = np.where(seen[..., None], points, np.inf).min(axis=1)
    high = np.where(seen[..., None], points, -np.inf).max(axis=1)
    return np.where(seen.any(axis=1), (high - low).max(axis=1), 0.0), palm_from_crop
