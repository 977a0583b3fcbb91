"""Whole-body annotations in COCO's form: the file is streamed, and each person's annotated hands become samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    any_exists,
    combined_digest,
    first_existing,
    is_readable,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.keypoints_2d import hand_in_2d, marked_points
from maskhand.adapters.readers.columns import (
    DictionaryColumn,
    FloatColumn,
    LazySequence,
    PathColumn,
    check_unique_images,
    repeated_ids,
    rows_of_ids,
)
from maskhand.adapters.readers.json_stream import open_json
from maskhand.catalog import DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_FIELDS = {
    "images": "id (a whole number), file_name, width and height",
    "annotations": "id and image_id (whole numbers) and keypoints",
}


@dataclass(frozen=True)
class PersonHand:
    """One hand of one person as the file has it."""

    side: Side
    """The side of the person, not of the image."""
    keypoints: Any
    """(63,) x, y, v of 21 joints."""
    box_xywh_px: Any = None
    rejection: tuple[str, str] | None = None
    """Reason and sentence, where the annotation already shows that the hand cannot be read."""


@dataclass
class _Columns:
    """Columns of the streamed file; `left_out` counts the persons whose annotation cannot be read at all."""

    image_ids: array = field(default_factory=lambda: array("q"))
    paths: PathColumn = field(default_factory=PathColumn)
    sizes_px: DictionaryColumn = field(default_factory=DictionaryColumn)
    annotation_ids: array = field(default_factory=lambda: array("q"))
    image_of_hand: array = field(default_factory=lambda: array("q"))
    sides: DictionaryColumn = field(default_factory=DictionaryColumn)
    keypoints: FloatColumn = field(default_factory=lambda: FloatColumn((63,)))
    boxes: FloatColumn = field(default_factory=lambda: FloatColumn((4,)))
    areas: FloatColumn = field(default_factory=lambda: FloatColumn(()))
    rejections: DictionaryColumn = field(default_factory=DictionaryColumn)
    left_out: int = 0

    def add_image(self, image: Mapping[str, Any]) -> None:
        self.image_ids.append(image["id"])
        self.paths.append(image["file_name"])
        self.sizes_px.append((image["width"], image["height"]))

    def add_hand(self, annotation: Mapping[str, Any], hand: PersonHand) -> None:
        self.annotation_ids.append(annotation["id"])
        self.image_of_hand.append(annotation["image_id"])
        self.sides.append(hand.side)
        self.keypoints.append(hand.keypoints)
        self.boxes.append(hand.box_xywh_px)
        self.areas.append(annotation.get("area"))
        self.rejections.append(hand.rejection)


class CocoHandsLayout(ABC):
    """Base class: reads one annotation file of a split. Layouts state where files lie and which fields have hands."""

    keypoints_field: ClassVar[str]
    """Name of an annotation's field of keypoints; `{side}` stands for left or right."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.root, self.split = spec, raw_dir, split

    @abstractmethod
    def label_places(self) -> list[str]:
        """Paths below the raw folder where the annotation file of the split may lie."""

    @abstractmethod
    def image_folders(self) -> list[str]:
        """Folders below the raw folder where the images of the split may lie."""

    @abstractmethod
    def hands_of(self, annotation: Mapping[str, Any]) -> Iterator[PersonHand] | None:
        """A person's annotated hands, and those to reject; None where the annotation does not even have the fields."""

    def present(self) -> bool:
        return any_exists(self._places())

    def plan(self) -> RawPlan:
        place = first_existing(self._places(), "annotations")
        table, sha256 = self._read(place)
        check_unique_images(place, table.image_ids, table.paths)
        image_rows = rows_of_ids(table.image_ids, table.image_of_hand)
        if (image_rows < 0).any():
            orphan = table.annotation_ids[int(np.argmax(image_rows < 0))]
            raise RawDataError(
                f"{place}: annotation {orphan} names an image that is not listed; the file is incomplete, copy it again"
            )
        for first, second in repeated_ids(table.annotation_ids):
            # A person's two hands have one id, and one image.
            if table.sides[first] == table.sides[second] or image_rows[first] != image_rows[second]:
                names = (table.paths[int(image_rows[row])] for row in (first, second))
                raise RawDataError(
                    f"{place}: the annotation id {table.annotation_ids[first]} is there twice, for hands in "
                    f"{' and in '.join(names)}; ids must be unique. Were two files joined? Give the annotations of one "
                    "of them other ids first"
                )
        count = len(image_rows)
        folder = self._folder(table.paths[int(image_rows[0])])

        def uri(position: int) -> str:
            return storage.join(folder, table.paths[int(image_rows[position])])

        def key(position: int) -> str:
            return f"{self.split}-{table.annotation_ids[position]:010d}-{table.sides[position][0]}"

        def item(position: int) -> Item:
            row = int(image_rows[position])
            raw = {
                "side": table.sides[position],
                "size": table.sizes_px[row],
                "keypoints": table.keypoints[position],
                "box": table.boxes[position],
                "area": table.areas[position],
                "rejection": table.rejections[position],
                "file": place,
            }
            origin = {"annotation": table.annotation_ids[position], "image": table.image_ids[row]}
            return Item(key(position), uri(position), raw, origin)

        digest = combined_digest(f"coco hands layout {VERSION}", sha256, spot_check(LazySequence(count, uri)))
        note = f"{table.left_out} annotations have no usable list of keypoints and were left out"
        notes = (note,) if table.left_out else ()
        return RawPlan(LazySequence(count, key), item, digest, notes, listed=len(table.image_ids))

    def read(self, item: Item) -> HandSample:
        key, raw = item.key, item.annotation
        where = f"{key}: {raw['file']}: annotation {item.origin['annotation']}"
        if raw["rejection"]:
            reason, sentence = raw["rejection"]
            raise SampleError(reason, f"{where}: {sentence}")
        name = self.keypoints_field.format(side=raw["side"])
        points = numbers(where, name, raw["keypoints"], (63,), finite=False).reshape(21, 3)
        points = marked_points(where, name, points)
        image = read_image(key, item.image_uri)
        if image.size_px != tuple(raw["size"]):
            raise SampleError("wrong_size", f"{where}: expected an image of {raw['size']}, it is {image.size_px}")
        # The official evaluations need the person's area and the hand's box, which nothing else of a sample tells.
        extra = {"person_area_px": raw["area"], "box_xywh_px": raw["box"]}
        extra = {k: np.asarray(v).tolist() for k, v in extra.items() if _is_finite(v)}
        # v may be a fraction; as a confidence it stays one, and 1 and 2 both mean annotated.
        return hand_in_2d(self.spec, item, where, image, raw["side"], points[:, :2], points[:, 2], more_origin=extra)

    def _read(self, place: str) -> tuple[_Columns, str]:
        table = _Columns()
        with open_json(place) as cursor:
            for part in cursor.members():
                if part not in _FIELDS:
                    cursor.value()
                    continue
                cursor.records(part, _FIELDS[part], table.add_image if part == "images" else self._adder(table))
        if not len(table.sides):
            raise RawDataError(
                f"{place}: no annotated hand; expected whole-body annotations, plain COCO keypoints have no hands"
            )
        return table, cursor.sha256

    def _adder(self, table: _Columns) -> Callable[[Mapping[str, Any]], None]:
        def add(record: Mapping[str, Any]) -> None:
            hands = self.hands_of(record)
            if hands is None:
                table.left_out += 1
                return
            for hand in hands:
                table.add_hand(record, hand)

        return add

    def _places(self) -> list[str]:
        return [storage.join(self.root, place) for place in self.label_places()]

    def _folder(self, image: str) -> str:
        """The first folder that has this image, or the first folder where none does."""
        folders = [storage.join(self.root, folder) for folder in self.image_folders()]
        return next((f for f in folders if is_readable(storage.join(f, image))), folders[0])


def _is_finite(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.floating | float | int) and bool(np.isfinite(value).all())
