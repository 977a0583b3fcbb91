"""Hand finder for photos without labels: a box and a side of each hand, for `adapters.layouts.photos`.

Only confident hands are listed, with clearly visible keypoints and a certain side: a hand with the wrong side would
become a mirrored target, which can be fitted just as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from maskhand import storage
from maskhand.annotate.detectors import HandBox
from maskhand.annotate.fit.evidence import MIN_SEEN_CONFIDENCE
from maskhand.annotate.hand_finder import find_hands
from maskhand.image_header import TooManyPixelsError, check_pixels

MIN_SIDE_PROBABILITY = 0.8
"""Minimum probability of a listed hand's side."""


@dataclass(frozen=True)
class PhotoHands:
    """The hands found in a photo."""

    name: str
    """Its path relative to the folder."""
    hands: list[dict[str, Any]] | None
    """`side`, `box_xyxy_px` and `score` of each, best first; None if the photo cannot be decoded."""
    uncertain: int
    """Number of hands that are not listed."""


@dataclass(frozen=True)
class FindHands:
    """Finds the hands of some photos; picklable, loads the finder once per process."""

    folder: str
    assets: str

    def __call__(self, names: Sequence[str]) -> list[PhotoHands]:
        """One result per photo, in order; names: paths relative to the folder."""
        return [self._hands_of(name) for name in names]

    def _hands_of(self, name: str) -> PhotoHands:
        try:
            data = storage.read_bytes(storage.join(self.folder, name))
            check_pixels(data)
            # decoded as by `images.decode_rgb`, as boxes are in pixels of the stored image
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        except (storage.MissingFileError, storage.NotAFileError, TooManyPixelsError, cv2.error):
            image = None
        if image is None:
            return PhotoHands(name, None, 0)
        found = find_hands(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.assets)
        confident = [hand for hand in found if is_confident(hand)]
        return PhotoHands(name, [_entry(hand) for hand in confident], len(found) - len(confident))


def is_confident(hand: HandBox) -> bool:
    """Whether its keypoints are confident enough and its side is certain."""
    right = float(hand.detection.right_probability[0])
    return (
        float(hand.detection.confidence.mean()) >= MIN_SEEN_CONFIDENCE and max(right, 1 - right) >= MIN_SIDE_PROBABILITY
    )


def _entry(hand: HandBox) -> dict[str, Any]:
    box = [round(float(value), 2) for value in hand.box_xyxy_px]
    return {"side": hand.side, "box_xyxy_px": box, "score": round(float(hand.score), 4)}
