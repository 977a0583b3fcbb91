"""InterHand2.6M's annotation files, gigabytes of JSON, read as a stream into columns.

About 0.1 kB stays in memory for each image with its annotation, and 1 kB for each captured frame.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskhand.adapters.base import RawDataError
from maskhand.adapters.readers.columns import (
    BoolColumn,
    DictionaryColumn,
    FloatColumn,
    PathColumn,
    check_unique_images,
    repeated_ids,
    rows_of_ids,
)
from maskhand.adapters.readers.json_stream import open_json
from maskhand.conventions import Side

HAND_SIDES: dict[str, tuple[Side, ...]] = {"right": ("right",), "left": ("left",), "interacting": ("right", "left")}
_SIDES: tuple[Side, ...] = ("right", "left")
_FIELDS = {
    "images": "id (a whole number), file_name, width, height, capture, seq_name, camera and frame_idx",
    "annotations": "id and image_id (whole numbers), hand_type (right, left or interacting) and hand_type_valid",
}


@dataclass(frozen=True)
class Images:
    """A row per image, in the file's order."""

    ids: array = field(default_factory=lambda: array("q"))
    paths: PathColumn = field(default_factory=PathColumn)
    sizes_px: DictionaryColumn = field(default_factory=DictionaryColumn)
    """(width, height)."""
    captures: DictionaryColumn = field(default_factory=DictionaryColumn)
    sequences: DictionaryColumn = field(default_factory=DictionaryColumn)
    cameras: DictionaryColumn = field(default_factory=DictionaryColumn)
    frames: DictionaryColumn = field(default_factory=DictionaryColumn)

    def append(self, image: Mapping[str, Any]) -> None:
        self.ids.append(image["id"])
        self.paths.append(image["file_name"])
        self.sizes_px.append((image["width"], image["height"]))
        self.captures.append(str(image["capture"]))
        self.sequences.append(image["seq_name"])
        self.cameras.append(str(image["camera"]))
        self.frames.append(str(image["frame_idx"]))


@dataclass(frozen=True)
class Annotations:
    """A row per annotation, in the file's order."""

    ids: array = field(default_factory=lambda: array("q"))
    image_ids: array = field(default_factory=lambda: array("q"))
    hand_types: DictionaryColumn = field(default_factory=DictionaryColumn)
    hand_types_valid: DictionaryColumn = field(default_factory=DictionaryColumn)
    joints_valid: BoolColumn = field(default_factory=lambda: BoolColumn((42, 1)))

    def append(self, annotation: Mapping[str, Any]) -> None:
        if annotation["hand_type"] not in HAND_SIDES:
            raise KeyError(annotation["hand_type"])
        self.ids.append(annotation["id"])
        self.image_ids.append(annotation["image_id"])
        self.hand_types.append(annotation["hand_type"])
        self.hand_types_valid.append(annotation["hand_type_valid"])
        self.joints_valid.append(annotation.get("joint_valid"))


@dataclass(frozen=True)
class HandColumns:
    """Every hand of a split: position -> annotation and image rows."""

    images: Images
    annotations: Annotations
    annotation_rows: np.ndarray
    """(H,) int32."""
    image_rows: np.ndarray
    """(annotations,) int32."""
    left: np.ndarray
    """(H,) bool."""
    sha256: str

    def __len__(self) -> int:
        return len(self.annotation_rows)

    def side(self, position: int) -> Side:
        return "left" if self.left[position] else "right"


def read_hands(uri: str) -> HandColumns:
    """Images and annotations of a data.json; RawDataError when it has another structure or lacks images."""
    images, annotations = Images(), Annotations()
    parts: dict[str, Images | Annotations] = {"images": images, "annotations": annotations}
    with open_json(uri) as cursor:
        for part in cursor.members():
            if part not in parts:
                cursor.value()
                continue
            cursor.records(part, _FIELDS[part], parts[part].append)
    if not len(annotations.ids):
        raise RawDataError(f"{uri}: no annotations; the file is incomplete")
    check_unique_images(uri, images.ids, images.paths)
    image_rows = rows_of_ids(images.ids, annotations.image_ids)
    if (image_rows < 0).any():
        orphan = annotations.ids[int(np.argmax(image_rows < 0))]
        raise RawDataError(
            f"{uri}: annotation {orphan} names an image that is not listed; the file is incomplete, copy it again"
        )
    for first, second in repeated_ids(annotations.ids):
        names = (images.paths[int(image_rows[row])] for row in (first, second))
        raise RawDataError(
            f"{uri}: the annotation id {annotations.ids[first]} is there twice, for hands in {' and in '.join(names)}; "
            "ids must be unique. Were two files joined? Give the annotations of one of them other ids first"
        )
    sides = [HAND_SIDES[kind] for kind in annotations.hand_types.values]
    codes = annotations.hand_types.codes()
    counts = np.array([len(kinds) for kinds in sides])[codes]
    annotation_rows = np.repeat(np.arange(len(codes), dtype=np.int32), counts)
    second = np.r_[False, annotation_rows[1:] == annotation_rows[:-1]]
    first_is_left = np.array([kinds[0] == "left" for kinds in sides])[codes][annotation_rows]
    return HandColumns(
        images, annotations, annotation_rows, image_rows.astype(np.int32), second | first_is_left, cursor.sha256
    )


class FrameJoints:
    """joint_3d.json: the joints of both hands in each captured frame."""

    def __init__(self, uri: str) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._world, self._valid = FloatColumn((42, 3)), BoolColumn((42, 1))
        with open_json(uri) as cursor:
            for capture in cursor.members():
                for frame in cursor.members():
                    entry = cursor.value()
                    known = isinstance(entry, dict)
                    self._rows[capture, frame] = len(self._world)
                    self._world.append(entry.get("world_coord") if known else None)
                    self._valid.append(entry.get("joint_valid") if known else None)
        self.sha256 = cursor.sha256

    def at(self, capture: str, frame: str) -> dict[str, Any] | None:
        """`world_coord` (42, 3) in the file's unit and `joint_valid` (42, 1); None where the frame is not listed."""
        row = self._rows.get((capture, frame))
        return None if row is None else {"world_coord": self._world[row], "joint_valid": self._valid[row]}


class FrameFits:
    """MANO_NeuralAnnot.json: the fitted parameters of each hand in each captured frame."""

    def __init__(self, uri: str) -> None:
        self._rows: dict[tuple[str, str, str], int] = {}
        self._columns = {"pose": FloatColumn((48,)), "shape": FloatColumn((10,)), "trans": FloatColumn((3,))}
        with open_json(uri) as cursor:
            for capture in cursor.members():
                for frame in cursor.members():
                    entry = cursor.value()
                    for side in _SIDES:
                        # What is there and has another structure is kept, for the reader to reject that hand.
                        fit = entry.get(side) if isinstance(entry, dict) else entry
                        if fit:
                            self._rows[capture, frame, side] = len(self._columns["pose"])
                            for name, column in self._columns.items():
                                column.append(fit.get(name) if isinstance(fit, dict) else None)
        self.sha256 = cursor.sha256

    def at(self, capture: str, frame: str, side: Side) -> dict[str, Any] | None:
        """`pose` (48,), `shape` (10,), `trans` (3,) as stored; None where this hand has no fit."""
        row = self._rows.get((capture, frame, side))
        return None if row is None else {name: column[row] for name, column in self._columns.items()}
