"""A search for small hands: palms in finer tiles, enlarged to the models' input size, with the same verification.

The usual search uses the picture and its half-size tiles, in which it finds palms from a tenth of a tile's side on.
Here tiles of `TILE_SIDES_PX` are searched in addition, for any picture size; benchmarks/small_hands.py has the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maskhand.annotate.detectors import HandBox
from maskhand.annotate.hand_finder import distinct_hands, shared_finder
from maskhand.arrays import Array

TILE_SIDES_PX = (192, 96)
"""For hands of 22 to 56 px, and of 11 to 28 px, which are enlarged by two."""
OVERLAP = 0.25
"""Overlap of neighboring tiles as a fraction of their side: more than the palm of such a hand."""
MIN_CONTRAST = 4.0
"""Minimum contrast of a tile; walls and sky have less, hands have more."""
MIN_SMALL_HAND_PX = 10
"""Longer side of the box around the keypoints."""
MAX_HANDS = 50


@dataclass(frozen=True)
class SmallHandFinder:
    """A `HandDetector`: the usual search, and a search for small hands."""

    assets: str
    """Folder of the models, which are downloaded if missing."""
    name: ClassVar[str] = "litert-hand, small hands too"

    def __call__(self, image_rgb: Array) -> list[HandBox]:
        """The hands of an image (H, W, 3) uint8 RGB, best first. Raises AssetError if the models are not available."""
        finder = shared_finder(self.assets)
        palms = [
            palm
            for side_px in TILE_SIDES_PX
            if side_px < max(image_rgb.shape[:2]) / 2  # larger tiles are covered by the usual search
            for palm in finder.palm_net.in_tiles(image_rgb, side_px, OVERLAP, MIN_CONTRAST)
        ]
        small = finder.verified(image_rgb, palms, MIN_SMALL_HAND_PX)
        return distinct_hands([*finder.find(image_rgb), *small])[:MAX_HANDS]
