"""The formats of files of hand boxes.

COCO: `images` (id, file_name, optional width and height), `annotations` (image_id, bbox = x, y, width, height, optional
`score` and `side`), `categories`: those with "hand" in their names are used, and "left" or "right" in the name is the
side. COCO's origin is the corner of the top-left pixel, ours is its center, so half a pixel is subtracted.

JSON Lines: an object per hand with `image`, `box_xyxy_px` (center of the top-left pixel = 0, 0), and optional `side`
("left" or "right") and `score` (0 to 1); a line without a box says that its image shows no hand.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from maskhand.annotate.detectors import DetectedBox
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.json_text import JsonError, parse_json_object
from maskhand.predict.photo import check_boxes
from maskhand.predict.records import PredictError

HALF_A_PIXEL = 0.5
"""From the corner of the top-left pixel, COCO's origin, to its center."""
COCO_KEYS = ("images", "annotations", "categories")
EXAMPLE = '{"image": "a.jpg", "box_xyxy_px": [10, 20, 90, 110], "side": "left", "score": 0.8}'


@dataclass(frozen=True)
class GivenBoxes:
    """The boxes of one picture."""

    name: str
    """The picture's path as written in the file."""
    place: str
    """Where the file first names the picture: `FILE:LINE` or `FILE: images[3]`."""
    size_px: tuple[int, int] | None
    """Width and height, if the file has them."""
    boxes: tuple[DetectedBox, ...]
    """In the order of the file; empty for a picture without a hand."""
    places: tuple[str, ...]
    """The `place` of each box."""

    def of(self, image_rgb: Array) -> tuple[DetectedBox, ...]:
        """The boxes, checked against the upright picture (H, W, 3). Raises PredictError if they do not fit it."""
        width, height = image_rgb.shape[1::-1]
        if self.size_px not in (None, (width, height)):
            sideways = self.size_px == (height, width)
            raise PredictError(
                f"{self.place}: {self.name} is said to be {self.size_px[0]} x {self.size_px[1]}, and the picture is "
                f"{width} x {height}; boxes are of another size of it"
                + (", or of the picture before its EXIF orientation is applied" if sideways else "")
            )
        for box, place in zip(self.boxes, self.places, strict=True):
            try:
                check_boxes(np.array([box.box_xyxy_px]), image_rgb)
            except PredictError as error:
                raise PredictError(f"{place}: {error}") from None
        return self.boxes


def read_lines(text: str, path: str) -> Iterator[GivenBoxes]:
    """The boxes in JSON Lines, by picture. Raises PredictError."""
    rows: dict[str, list[tuple[str, DetectedBox | None]]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = parse_json_object(line)
        except JsonError as error:
            raise PredictError(f"{place}: {error}; expected a line such as {EXAMPLE}") from None
        name = row.get("image")
        if not isinstance(name, str) or not PurePath(name).name:
            raise PredictError(f"{place}: `image` is {name!r}; expected a picture's path, in a line such as {EXAMPLE}")
        box = row.get("box_xyxy_px")
        x0, y0, x1, y1 = (0.0, 0.0, 1.0, 1.0) if box is None else _four(box, "box_xyxy_px", place)
        if not (x0 < x1 and y0 < y1):
            raise PredictError(f"{place}: `box_xyxy_px` is {box}; expected x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        hand = DetectedBox((x0, y0, x1, y1), _side(row, place), _score(row, place))
        rows.setdefault(name, []).append((place, None if box is None else hand))
    if not rows:
        raise PredictError(f"{path}: no boxes; expected COCO's JSON or lines such as {EXAMPLE}")
    for name, hands in rows.items():
        yield _given(name, hands[0][0], None, hands)


def read_coco(labels: Any, path: str) -> Iterator[GivenBoxes]:
    """The boxes in COCO's labels, by picture. Raises PredictError."""
    if not isinstance(labels, dict) or not all(isinstance(labels.get(key), list) for key in COCO_KEYS):
        found = f"a list of {len(labels)}" if isinstance(labels, list) else ", ".join(map(str, labels))
        raise PredictError(f"{path}: found {found}; expected COCO's object with the lists {', '.join(COCO_KEYS)}")
    sides = _hand_categories(labels["categories"], path)
    hands: dict[Any, list[tuple[str, DetectedBox | None]]] = {}
    for k, label in enumerate(labels["annotations"]):
        place = f"{path}: annotations[{k}]"
        image, category = _field(label, "image_id", place), _field(label, "category_id", place)
        x, y, width, height = _four(_field(label, "bbox", place), "bbox", place)
        if not (width > 0 and height > 0):
            raise PredictError(f"{place}: `bbox` is {label['bbox']}; expected x, y, width, height with a size above 0")
        x, y = x - HALF_A_PIXEL, y - HALF_A_PIXEL
        if category in sides:
            box = DetectedBox(
                (x, y, x + width, y + height), _side(label, place) or sides[category], _score(label, place)
            )
            hands.setdefault(image, []).append((place, box))
    known = set()
    names = Counter(str(_field(image, "file_name", f"{path}: images[{k}]")) for k, image in enumerate(labels["images"]))
    for k, image in enumerate(labels["images"]):
        place, name, number = (
            f"{path}: images[{k}]",
            str(image["file_name"]),
            _field(image, "id", f"{path}: images[{k}]"),
        )
        if names[name] > 1 or number in known:
            what = f"`id` {number}" if number in known else f"`file_name` {name}"
            raise PredictError(f"{place}: {what} is there twice; each image once, with all its annotations")
        known.add(number)
        size = (image.get("width"), image.get("height"))
        yield _given(name, place, None if None in size else size, hands.pop(number, []))
    if hands:
        (place, _), *_ = next(iter(hands.values()))
        raise PredictError(f"{place}: its `image_id` is in none of `images`")


def _given(
    name: str, place: str, size: tuple[int, int] | None, hands: Sequence[tuple[str, DetectedBox | None]]
) -> GivenBoxes:
    boxes = [(where, box) for where, box in hands if box is not None]
    return GivenBoxes(name, place, size, tuple(box for _, box in boxes), tuple(where for where, _ in boxes))


def _hand_categories(categories: list[Any], path: str) -> dict[Any, Side | None]:
    """The side of each hand category; None where its name does not contain it."""
    named = {
        _field(entry, "id", f"{path}: categories[{k}]"): str(entry.get("name", "")).lower()
        for k, entry in enumerate(categories)
    }
    hands = {number: name for number, name in named.items() if "hand" in name}
    if not hands:
        found = ", ".join(sorted(named.values())) or "none"
        raise PredictError(f"{path}: `categories` are {found}; expected one with `hand` in its name")
    both: tuple[Side, Side] = ("left", "right")
    return {number: next((side for side in both if side in name), None) for number, name in hands.items()}


def _field(entry: Any, name: str, place: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise PredictError(f"{place}: no `{name}`; found {sorted(entry) if isinstance(entry, dict) else entry!r}")
    value = entry[name]
    if isinstance(value, dict) or (isinstance(value, list) and name != "bbox"):
        raise PredictError(f"{place}: `{name}` is {value!r}; expected a number or a text")
    return value


def _four(values: Any, name: str, place: str) -> tuple[float, float, float, float]:
    if not isinstance(values, list) or len(values) != 4 or not all(_is_number(value) for value in values):
        raise PredictError(f"{place}: `{name}` is {values!r}; expected four finite numbers, in pixels")
    a, b, c, d = map(float, values)
    return a, b, c, d


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _side(row: dict[str, Any], place: str) -> Side | None:
    side = row.get("side")
    if side is None or side in ("left", "right"):
        return side
    raise PredictError(f"{place}: `side` is {side!r}; expected left or right, or no side")


def _score(row: dict[str, Any], place: str) -> float | None:
    score = row.get("score")
    if score is None or (_is_number(score) and 0 <= score <= 1):
        return score
    raise PredictError(f"{place}: `score` is {score!r}; expected 0 to 1, or no score")
