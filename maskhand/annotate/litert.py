"""The embedded keypoint detector: the open hand landmark model (Apache-2.0, 5 MB) on LiteRT, made robust to rotation.

The model needs one roughly upright hand in a square image, but a box does not tell the hand's rotation. So the model
runs in pairs: a first pass at an assumed rotation locates the wrist and the middle knuckle, and a second pass runs on a
crop that is rotated upright by them and re-centered. If both passes agree, fill the given box and show the known side,
two runs are enough; else the next assumed rotation is tried, and finally the best pair is used.

Measured (error as a fraction of the joints' longer side, misses count): PCK@.1/.2 = .75/.91 with 5.7 runs on 72 real
hands (six annotated InterHand2.6M hands, four of them interacting, mirrored and rotated by random angles), where the
best of 8 single passes reaches .73/.92, and .71/.91 with 4.7 runs on 80 synthetic ones. One run takes 7-8 ms on one
core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskhand.annotate.detectors import Detections, check_inputs
from maskhand.annotate.upright_crop import square_affine, square_crop, upright_angle, upright_extent
from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS, Side
from maskhand.fetched_models import LANDMARK_MODEL, hand_models
from maskhand.geometry2d import box_iou, tight_box

INPUT_PX = 224

FIRST_CROP = 2.0
"""Side of the first crop in longer sides of the box, which is tight around the joints: the model expects a margin
around the hand (measured: PCK@.1 is a tenth lower with 1.3 than with 2)."""
SECOND_CROP = 1.7
"""Side of the second crop in longer sides of the first pass's landmarks."""
ROTATIONS_RAD = (
    0.0,
    math.pi,
    math.pi / 2,
    -math.pi / 2,
    math.pi / 4,
    -3 * math.pi / 4,
    3 * math.pi / 4,
    -math.pi / 4,
)
"""Assumed rotations of the hand, in the order of trial."""
ACCEPT_QUALITY = 0.25
"""A pair of passes above this quality ends the search; 0.35 costs one more run per hand for .01 of PCK@.1."""
MIN_FIRST_QUALITY = 0.05
"""A first pass below this quality gets no second pass."""
DISAGREEMENT_SCALE = 0.1
"""Scale of the disagreement between two passes, in longer sides of the box."""
REVISION = "2"
"""Raise it whenever the procedure above changes: it is part of the version of cached keypoints."""


@dataclass(frozen=True)
class Landmarks:
    """The model's output for one crop. Axes of the image: x right, y down, z away from the camera."""

    keypoints_px: Array
    """(21, 2) float64, pixels of the image."""
    z_px: Array
    """(21,) depth behind the wrist in pixels of the image."""
    world_m: Array
    """(21, 3) meters, relative to the center of the hand."""
    presence: float
    right_probability: float


@dataclass(frozen=True)
class PassPair:
    """Two passes over the same hand, merged."""

    detection: Detections
    """One hand."""
    quality: float
    """0..1: high if both passes have a hand of the known side, agree, and fill the given box."""


class LandmarkNet:
    """The landmark model: from a square region of an image, at any rotation, to 21 landmarks."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(str(model), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in self._net.get_output_details()}
        names = ("Identity", "Identity_1", "Identity_2", "Identity_3")
        self._points, self._presence, self._right, self._world = (outputs[name] for name in names)

    def predict(self, image: Array, center_px: Array, side_px: float, angle_rad: float) -> Landmarks:
        """The landmarks in the square with side `side_px` around `center_px`, rotated clockwise by `angle_rad`."""
        crop = square_crop(image, center_px, side_px, angle_rad, INPUT_PX)
        self._net.set_tensor(self._input, crop[None].astype(np.float32) / np.float32(255))
        self._net.invoke()
        points, world = (
            self._net.get_tensor(index).reshape(NUM_JOINTS, 3).astype(np.float64)
            for index in (self._points, self._world)
        )
        image_from_crop = cv2.invertAffineTransform(square_affine(center_px, side_px, angle_rad, INPUT_PX))
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        return Landmarks(
            keypoints_px=points[:, :2] @ image_from_crop[:, :2].T + image_from_crop[:, 2],
            z_px=points[:, 2] * (side_px / INPUT_PX),
            world_m=world @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]),
            presence=float(self._net.get_tensor(self._presence)[0, 0]),
            right_probability=float(self._net.get_tensor(self._right)[0, 0]),
        )


class LitertHand:
    """`KeypointDetector` over the landmark model."""

    name = "litert-hand"
    version = f"{LANDMARK_MODEL.sha256[:12]}-{REVISION}"

    def __init__(self, assets: str | Path, threads: int = 1) -> None:
        """Load the model from the assets folder, downloading it if missing; raises AssetError."""
        self.net = LandmarkNet(hand_models(assets).landmark, threads)

    def detect(
        self, images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None = None
    ) -> Detections:
        """See `KeypointDetector.detect`. A joint's confidence is the hand's presence times the agreement of the two
        passes on the joint."""
        check_inputs(images, boxes_xyxy_px, sides)
        known = sides if sides is not None else [None] * len(images)
        return Detections.stack(
            [self.best_pair(*row).detection for row in zip(images, boxes_xyxy_px, known, strict=True)]
        )

    def best_pair(self, image: Array, box_px: Array, side: Side | None) -> PassPair:
        """The first pair of passes above `ACCEPT_QUALITY`, else the best of all assumed rotations."""
        best: PassPair | None = None
        for pair in self._pairs(image, np.asarray(box_px, np.float64), side):
            if best is None or pair.quality > best.quality:
                best = pair
            if best.quality > ACCEPT_QUALITY:
                break
        assert best is not None
        return best

    def _pairs(self, image: Array, box_px: Array, side: Side | None) -> Iterator[PassPair]:
        center, extent = (box_px[:2] + box_px[2:]) / 2, float((box_px[2:] - box_px[:2]).max())
        for rotation in ROTATIONS_RAD:
            first = self.net.predict(image, center, FIRST_CROP * extent, rotation)
            quality = landmark_quality(first, box_px, side)
            if quality < MIN_FIRST_QUALITY:
                yield PassPair(_detection(first, np.zeros(NUM_JOINTS)), 0.0)
                continue
            angle = upright_angle(first.keypoints_px)
            found_center, found_extent = upright_extent(first.keypoints_px, angle)
            # The mean of the given and the found square: a bad first pass cannot move the crop off the hand.
            side_px = (SECOND_CROP * found_extent + FIRST_CROP * extent) / 2
            second = self.net.predict(image, (found_center + center) / 2, side_px, angle)
            distance = float(np.linalg.norm(first.keypoints_px - second.keypoints_px, axis=1).mean()) / extent
            both = math.sqrt(quality * landmark_quality(second, box_px, side)) * math.exp(
                -distance / DISAGREEMENT_SCALE
            )
            # The side is taken from the upright pass: left and right are hard to distinguish upside down.
            yield PassPair(merged_landmarks(first, second, extent, second.right_probability), both)


def merged_landmarks(first: Landmarks, second: Landmarks, extent_px: float, right_probability: float) -> Detections:
    """The mean of two passes over one hand; a joint's confidence is their agreement on it times presence."""
    distance = np.linalg.norm(first.keypoints_px - second.keypoints_px, axis=1) / extent_px
    presence = math.sqrt(first.presence * second.presence)
    mean = Landmarks(
        keypoints_px=(first.keypoints_px + second.keypoints_px) / 2,
        z_px=(first.z_px + second.z_px) / 2,
        world_m=(first.world_m + second.world_m) / 2,
        presence=presence,
        right_probability=right_probability,
    )
    return _detection(mean, presence * np.exp(-distance / DISAGREEMENT_SCALE))


def _detection(landmarks: Landmarks, confidence: Array) -> Detections:
    """One hand; confidence (21,)."""
    values = (
        landmarks.keypoints_px,
        confidence,
        landmarks.presence,
        landmarks.right_probability,
        landmarks.z_px,
        landmarks.world_m,
    )
    return Detections(*(np.asarray(value, np.float32)[None] for value in values))


def landmark_quality(landmarks: Landmarks, box_px: Array, side: Side | None) -> float:
    """0..1: high if there is a hand of the known side and it fills the given box."""
    right = landmarks.right_probability
    as_known = 1.0 if side is None else 0.1 + 0.9 * (right if side == "right" else 1 - right)
    return landmarks.presence * as_known * box_iou(tight_box(landmarks.keypoints_px), box_px)
