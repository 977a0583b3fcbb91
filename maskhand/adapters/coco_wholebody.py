"""COCO-WholeBody's published layout: COCO 2017's pictures, its own annotation files.

Facts: FORMATS section 8; jin-s13/COCO-WholeBody README.md, data_format.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from maskhand.adapters.coco_hands import CocoHandsLayout, PersonHand
from maskhand.conventions import Side

_SIDES: tuple[Side, ...] = ("left", "right")


class CocoWholeBodyLayout(CocoHandsLayout):
    """`annotations/coco_wholebody_<split>_v1.0.json` and `<split>2017/%012d.jpg`."""

    def label_places(self) -> list[str]:
        name = f"coco_wholebody_{self.split}_v1.0.json"
        return [f"annotations/{name}", name]

    def picture_folders(self) -> list[str]:
        return [f"{self.split}2017", f"images/{self.split}2017"]

    def hands_of(self, annotation: Mapping[str, Any]) -> Iterator[PersonHand] | None:
        """Hands with the flag `<side>hand_valid`; the rows of the others are zeros."""
        if not any(f"{side}hand_valid" in annotation for side in _SIDES):
            return None
        return (
            PersonHand(side, annotation.get(f"{side}hand_kpts"), annotation.get(f"{side}hand_box"))
            for side in _SIDES
            if annotation.get(f"{side}hand_valid")
        )
