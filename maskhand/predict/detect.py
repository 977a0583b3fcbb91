"""Hand detection: boxes, sides and 2D keypoints of an image's hands, in detected or given boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import DetectedBox, Detections, HandBox, HandDetector
from maskhand.annotate.hand_finder import find_hands
from maskhand.annotate.registry import load_detector
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.predict.photo import Box, check_boxes, check_image
from maskhand.predict.records import MIN_MEAN_CONFIDENCE

HAND_FINDER = "litert-hand"
"""The detector whose keypoints the hand finder returns as well."""


@dataclass(frozen=True)
class DetectedHands:
    """N detected hands of one image, best first."""

    boxes_xyxy_px: Array
    """(N, 4) float32."""
    scores: tuple[float | None, ...]
    """0..1 confidence of the hand finder; None for a given box without a score."""
    sides: tuple[Side, ...]
    """As given, or as detected."""
    side_known: tuple[bool, ...]
    """Whether the side was given, or the keypoints are confident enough to determine it."""
    detections: Detections
    """2D keypoints of the N hands in pixels of the image; left hands are not mirrored."""

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, rows: slice) -> DetectedHands:
        return DetectedHands(*(values[rows] for values in vars(self).values()))

    @staticmethod
    def join(parts: Sequence[DetectedHands]) -> DetectedHands:
        """The hands of several images, detected by the same detector."""
        return DetectedHands(
            np.concatenate([part.boxes_xyxy_px for part in parts]),
            tuple(score for part in parts for score in part.scores),
            tuple(side for part in parts for side in part.sides),
            tuple(known for part in parts for known in part.side_known),
            Detections.stack([part.detections for part in parts]),
        )


def detect_hands(
    image_rgb: Array,
    boxes_xyxy_px: Sequence[Box | DetectedBox] | Array | None,
    side: Side | None,
    detector: str,
    assets: Path,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
) -> DetectedHands:
    """Detect the hands of an image (H, W, 3) uint8 RGB.

    boxes_xyxy_px: one hand each; None: all hands are detected, by `finder` or by default by the embedded one. side: of
    every hand; None: as in its box, else as detected. Hands whose keypoints have a mean confidence below
    `min_confidence` are left out. Raises PredictError for an image that cannot be used and for boxes outside of it,
    AssetError when the detector's model is not available.
    """
    check_image(image_rgb)
    found: Sequence[DetectedBox | HandBox]
    if boxes_xyxy_px is not None:
        found = [box if isinstance(box, DetectedBox) else DetectedBox(box) for box in boxes_xyxy_px]
    else:
        found = find_hands(image_rgb, assets) if finder is None else finder(image_rgb)
    boxes = np.array([hand.box_xyxy_px for hand in found], np.float32).reshape(-1, 4)
    sides: list[Side | None] = [side or hand.side for hand in found]
    with_keypoints = [hand.detection for hand in found if isinstance(hand, HandBox)]
    if len(with_keypoints) == len(found) and (detector == HAND_FINDER or not found):
        detections = Detections.stack(with_keypoints)
    else:
        if boxes_xyxy_px is not None or finder is not None:
            check_boxes(boxes, image_rgb)
        detections = load_detector(detector, assets).detect([image_rgb] * len(boxes), boxes, sides)
    confidence = detections.confidence.mean(axis=1)
    rows = np.flatnonzero(confidence >= min_confidence)
    kept = rows.tolist()
    return DetectedHands(
        boxes[rows],
        tuple(found[k].score for k in kept),
        tuple(sides[k] or ("right" if detections.right_probability[k] > 0.5 else "left") for k in kept),
        tuple(side is not None or _has_side(found[k]) or bool(confidence[k] >= MIN_MEAN_CONFIDENCE) for k in kept),
        detections[rows],
    )


def _has_side(hand: DetectedBox | HandBox) -> bool:
    """Whether a box comes with a side; a side from keypoints does not count, as it may be a guess."""
    return isinstance(hand, DetectedBox) and hand.side is not None
