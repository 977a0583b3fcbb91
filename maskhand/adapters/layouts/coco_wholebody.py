"""COCO-WholeBody's published layout: COCO 2017's images, its own annotation files.

Facts: docs/formats.md#coco-wholebody-and-halpe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from maskhand.adapters.layouts.coco_hands import CocoHandsLayout, PersonHand
from maskhand.conventions import Side

_SIDES: tuple[Side, ...] = ("left", "right")


class CocoWholeBodyLayout(CocoHandsLayout):
    """`annotations/coco_wholebody_<split>_v1.0.json` and `<split>2017/%012d.jpg`."""

    keypoints_field = "{side}hand_kpts"

    def label_places(self) -> list[str]:
        name = f"coco_wholebody_{self.split}_v1.0.json"
        return [f"annotations/{name}", name]

    def image_folders(self) -> list[str]:
        return [f"{self.split}2017", f"images/{self.split}2017"]

    def hands_of(self, annotation: Mapping[str, Any]) -> Iterator[PersonHand] | None:
        """Hands with the flag `<side>hand_valid`; the rows of the others are zeros. Hands without it are rejected."""
        flags = {side: annotation.get(f"{side}hand_valid") for side in _SIDES}
        if all(flag is None for flag in flags.values()):
            return None
        return (_hand(annotation, side) for side, flag in flags.items() if flag is None or flag)


def _hand(annotation: Mapping[str, Any], side: Side) -> PersonHand:
    flag = f"{side}hand_valid"
    if annotation.get(flag) is None:
        found = "null" if flag in annotation else "missing"
        return PersonHand(side, None, rejection=("missing_field", f"{flag} is {found}, expected true or false"))
    return PersonHand(side, annotation.get(f"{side}hand_kpts"), annotation.get(f"{side}hand_box"))
