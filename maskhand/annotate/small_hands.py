"""A search for hands of few pixels: palms in finer tiles, enlarged to what the models expect, and verified alike.

The usual search looks at the picture and its half-size tiles, where it finds palms from a tenth of a tile on.
Here tiles of `TILE_SIDES_PX` cover the picture too, whatever its size; benchmarks/small_hands.py says what that costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maskhand.annotate.detectors import HandBox
from maskhand.annotate.hand_finder import distinct_hands, shared_finder
from maskhand.arrays import Array

TILE_SIDES_PX = (192, 96)
"""For hands of 22 to 56 px, and of 11 to 28 px, which are enlarged twofold."""
OVERLAP = 0.25
"""Share of neighboring tiles that both see: more than such a hand's palm."""
MIN_CONTRAST = 4.0
"""Of a tile; walls and the sky have less, and hands do not."""
MIN_SMALL_HAND_PX = 10
"""Longer side of the box around the keypoints."""
MAX_HANDS = 50


@dataclass(frozen=True)
class SmallHandFinder:
    """A `HandDetector`: what the usual search finds, and small hands."""

    assets: str
    """Folder of the models, which are fetched when missing."""
    name: ClassVar[str] = "litert-hand, small hands too"

    def __call__(self, image_rgb: Array) -> list[HandBox]:
        """The hands of an image (H, W, 3) uint8 RGB, best first. Raises AssetError when the models cannot be had."""
        finder = shared_finder(self.assets)
        palms = [
            palm
            for side_px in TILE_SIDES_PX
            if side_px < max(image_rgb.shape[:2]) / 2  # which the usual search has
            for palm in finder.palm_net.in_tiles(image_rgb, side_px, OVERLAP, MIN_CONTRAST)
        ]
        small = finder.verified(image_rgb, palms, MIN_SMALL_HAND_PX)
        return distinct_hands([*finder.find(image_rgb), *small])[:MAX_HANDS]
