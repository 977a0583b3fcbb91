"""The interface of 2D keypoint detectors: their input and output records, and the protocol they implement.

A detector gets images and one hand box per image, in pixels of the stored image and never mirrored: a left hand appears
as a left hand. The side of each hand may be given; a detector must work without it. Its output is in OpenPose-21 order
(`maskhand.conventions.OPENPOSE_21`). `registry` has the detectors by name.

Detectors define joint positions differently. The embedded one puts the wrist and the knuckles (MCPs) 10-17 % of the
hand's length closer to the arm than FreiHAND's annotation does; keypoints are not corrected for this, and sidecars name
the detector and its version so that two detectors are never mixed unknowingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS, Side
from maskhand.shards.sidecar_records import DetectedKeypoints


@dataclass(frozen=True)
class Detections:
    """The keypoints of N hands."""

    keypoints_px: Array
    """(N, 21, 2) float32, OpenPose order, pixels of the image (center of the top-left pixel = 0, 0)."""
    confidence: Array
    """(N, 21) float32 in 0..1; 0 = not found."""
    presence: Array
    """(N,) float32 in 0..1, the probability that the box contains a hand."""
    right_probability: Array
    """(N,) float32 in 0..1, the probability of a right hand; 0.5 if the detector does not determine sides."""
    z_px: Array | None = None
    """(N, 21) float32, depth behind the wrist in pixels of the image, at the scale of x and y; None for a 2D
    detector."""
    world_m: Array | None = None
    """(N, 21, 3) float32, meters, axes of the image (x right, y down, z away from the camera), arbitrary origin; None
    for a 2D detector."""

    def __len__(self) -> int:
        return len(self.presence)

    def __getitem__(self, rows: slice | Array) -> Detections:
        return replace(self, **{name: value[rows] for name, value in self.arrays().items()})

    def arrays(self) -> dict[str, Array]:
        """The fields that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def hands(self) -> list[DetectedKeypoints]:
        """The hands one by one, as stored in sidecars."""
        fields = self.arrays()
        return [DetectedKeypoints(**{name: values[k] for name, values in fields.items()}) for k in range(len(self))]

    @staticmethod
    def of_hands(hands: Sequence[DetectedKeypoints]) -> Detections:
        """One record of hands that were detected by the same detector."""
        return Detections.stack([Detections(**{n: a[None] for n, a in hand.encode().items()}) for hand in hands])

    @staticmethod
    def stack(rows: Sequence[Detections]) -> Detections:
        """Concatenate records of one detector; an empty record if there are none."""
        if not rows:
            return Detections(
                np.zeros((0, NUM_JOINTS, 2), np.float32),
                np.zeros((0, NUM_JOINTS), np.float32),
                np.zeros(0, np.float32),
                np.zeros(0, np.float32),
            )
        return Detections(
            **{
                name: np.concatenate([getattr(row, name) for row in rows]).astype(np.float32)
                for name in rows[0].arrays()
            }
        )


@dataclass(frozen=True)
class HandBox:
    """A hand found in a full photo."""

    box_xyxy_px: Array
    """(4,) float32, tight around the hand's keypoints, like the boxes of annotated hands."""
    side: Side
    score: float
    """0..1, presence of a hand in the box."""
    detection: Detections
    """The keypoints of this one hand, a result of the box's verification, so they need not be detected again."""

    @property
    def keypoints_px(self) -> Array:
        """(21, 2) float32, OpenPose order."""
        return self.detection.keypoints_px[0]


@dataclass(frozen=True)
class DetectedBox:
    """A hand from a box detector, without keypoints."""

    box_xyxy_px: Array | tuple[float, float, float, float]
    """(4,) x0, y0, x1, y1, pixels of the image (center of the top-left pixel = 0, 0)."""
    side: Side | None = None
    """None if the detector does not determine sides."""
    score: float | None = None
    """0..1."""


class HandDetector(Protocol):
    """Any hand detector: a function of an image that returns a box for each hand, best first.

    A `HandBox` also has keypoints, which may then be used; for a `DetectedBox` they are detected.
    """

    def __call__(self, image_rgb: Array, /) -> Sequence[DetectedBox | HandBox]:
        """image_rgb: (H, W, 3) uint8, upright; returns an empty list if there is no hand."""
        ...


class KeypointDetector(Protocol):
    """Finds the 21 keypoints of the hand in each box."""

    name: str
    """Stable name used in sidecar names: `keypoints.<name>`."""
    version: str
    """Changes whenever the output may change: the digest of the weights and the revision of the procedure."""

    def detect(
        self, images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None = None
    ) -> Detections:
        """Keypoints of one hand per image.

        images: N images (H, W, 3) uint8 RGB, any sizes; boxes_xyxy_px: (N, 4) pixels; sides: of each hand, None if
        unknown. Raises ValueError if shapes do not match.
        """
        ...


def check_inputs(images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None) -> None:
    """Raise ValueError, naming the problem, unless images and boxes are valid, with one box (and side) per image."""
    boxes = np.asarray(boxes_xyxy_px)
    if boxes.shape != (len(images), 4):
        raise ValueError(f"boxes_xyxy_px has shape {boxes.shape}, expected ({len(images)}, 4): one box per image")
    if sides is not None and len(sides) != len(images):
        raise ValueError(f"sides has {len(sides)} entries, expected {len(images)}: one per image")
    for k, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {k} is {image.dtype} of shape {image.shape}, expected uint8 (H, W, 3) RGB")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] - boxes[:, :2] < 2).any(axis=1)
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise ValueError(f"box {k} is {boxes[k].tolist()}, expected finite x0, y0, x1, y1 at least 2 pixels apart")
