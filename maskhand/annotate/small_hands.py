"""A search for hands of few pixels: palms in finer tiles, each enlarged to what the models expect, and verified alike.

The usual search looks at the picture and its half-size tiles, where a palm of a tenth of a tile is found at best. Here
tiles of `TILE_SIDES_PX` cover the picture as well, unless nothing is in them.
"""

from __future__ import annotations

from pathlib import Path

from maskhand.annotate.detectors import HandBox
from maskhand.annotate.hand_finder import distinct_hands, shared_finder
from maskhand.arrays import Array

TILE_SIDES_PX = (192, 96)
"""For hands of 22 to 56 px, and of 11 to 28 px, which are enlarged twofold."""
OVERLAP = 0.25
"""Share of neighboring tiles: more than such a hand's palm."""
MIN_SMALL_HAND_PX = 10
"""Longer side of the box around the keypoints; below that the landmark model sees a hand in anything."""
MAX_HANDS = 50


def find_with_small(image: Array, assets: str | Path) -> list[HandBox]:
    """The hands of a photo (H, W, 3) uint8 RGB, best first, small ones too.

    Raises AssetError when the models cannot be had.
    """
    finder = shared_finder(str(assets))
    hands = finder.find(image)
    palms = [
        palm for side in TILE_SIDES_PX for palm in finder.palms(image, side, OVERLAP) if side < max(image.shape[:2]) / 2
    ]
    return distinct_hands([*hands, *finder.verified(image, palms, MIN_SMALL_HAND_PX)])[:MAX_HANDS]
