"""Halpe-FullBody's published layout: images of HICO-DET (train) and COCO 2017 (val), 136 keypoints per person.

Facts: docs/formats.md#coco-wholebody-and-halpe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maskhand.adapters.layouts.coco_hands import CocoHandsLayout, PersonHand
from maskhand.conventions import Side

_FIRST_KEYPOINT: dict[Side, int] = {"left": 94, "right": 115}
_KEYPOINTS = 136
_FOLDERS = {
    "train": ["images/train2015", "hico_20160224_det/images/train2015", "train2015"],
    "val": ["images/val2017", "val2017"],
}


class HalpeLayout(CocoHandsLayout):
    """`halpe_<split>_v1.json` (perhaps in `annotations`), `images/train2015` and `images/val2017`."""

    keypoints_field = "keypoints"

    def label_places(self) -> list[str]:
        name = f"halpe_{self.split}_v1.json"
        return [f"annotations/{name}", name]

    def image_folders(self) -> list[str]:
        return _FOLDERS[self.split]

    def hands_of(self, annotation: Mapping[str, Any]) -> Iterator[PersonHand] | None:
        """Hands with any keypoint; there is no flag, and a hand that is not annotated is rows of zeros."""
        raw = annotation.get("keypoints")
        if not isinstance(raw, list) or not raw:
            return None
        try:
            keypoints = np.asarray(raw, dtype=np.float64).reshape(_KEYPOINTS, 3)
        except (TypeError, ValueError, OverflowError):
            # It is unknown which joints are gone, so both hands are planned for the reader to reject.
            sentence = f"keypoints is a list of {len(raw)} entries, expected {_KEYPOINTS * 3} numbers"
            return (PersonHand(side, None, rejection=("wrong_shape", sentence)) for side in _FIRST_KEYPOINT)
        hands = ((side, keypoints[first : first + 21]) for side, first in _FIRST_KEYPOINT.items())
        # `not <= 0` keeps a hand whose flags are not numbers, for the reader to reject.
        return (PersonHand(side, points.ravel()) for side, points in hands if not (points[:, 2] <= 0).all())
