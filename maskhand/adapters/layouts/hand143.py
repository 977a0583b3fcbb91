"""CMU HandDB's hand143_panopticdb: one JSON file with a hand per image of the Panoptic Studio.

Facts: docs/formats.md#handdb. No side is published; the card says which one is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    any_exists,
    combined_digest,
    first_existing,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.keypoints_2d import hand_in_2d, marked_points
from maskhand.adapters.readers.label_files import field
from maskhand.adapters.readers.split_files import read_json
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_LABELS = "hands_v143_14817.json"


class Hand143Layout:
    """`hands_v143_14817.json` and `imgs/%08d.jpg`, perhaps below `hand143_panopticdb`."""

    side: Side

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if spec.handedness == "both":
            raise CatalogError(f"{spec.name}: the layout hand143 publishes no side; the card must name one")
        self.spec, self.split, self.side = spec, split, spec.handedness
        self.roots = (raw_dir, storage.join(raw_dir, "hand143_panopticdb"))

    def present(self) -> bool:
        return any_exists(self._places())

    def plan(self) -> RawPlan:
        place = first_existing(self._places(), "annotations")
        file, folder = read_json(place), storage.join(place.rpartition("/")[0], "imgs")
        entries = file.value.get("root") if isinstance(file.value, dict) else None
        if not isinstance(entries, list) or not entries:
            raise RawDataError(f"{place}: expected {{'root': [...]}}, an entry per image; is this the right file?")

        def uri(position: int) -> str:
            entry = entries[position]
            path = entry.get("img_paths") if isinstance(entry, dict) else None
            # Only the file name of the published path is right; without one, entry i belongs to image i.
            return storage.join(folder, path.rpartition("/")[2] if isinstance(path, str) else f"{position:08d}.jpg")

        def item(position: int) -> Item:
            entry: Any = entries[position]
            return Item(keys[position], uri(position), {"fields": entry, "file": place}, {"index": position})

        keys = [f"{self.split}-{position:08d}" for position in range(len(entries))]
        images = spot_check([uri(position) for position in range(len(entries))])
        digest = combined_digest(f"hand143 layout {VERSION}", file.sha256, images)
        return RawPlan(keys, item, digest, listed=len(keys))

    def read(self, item: Item) -> HandSample:
        key, fields = item.key, item.annotation["fields"]
        where = f"{key}: {item.annotation['file']}"
        if not isinstance(fields, dict):
            raise SampleError("wrong_shape", f"{where}: the entry is a {type(fields).__name__}, expected fields")
        stored = numbers(where, "joint_self", field(where, fields, "joint_self"), (21, 3), finite=False)
        points = marked_points(where, "joint_self", stored)
        image = read_image(key, item.image_uri)
        stated = (fields.get("img_width", image.size_px[0]), fields.get("img_height", image.size_px[1]))
        if image.size_px != stated:
            raise SampleError("wrong_size", f"{where}: expected an image of {stated}, it is {image.size_px}")
        annotated = (points[:, 2] == 1).astype(np.float64)
        return hand_in_2d(self.spec, item, where, image, self.side, points[:, :2], annotated)

    def _places(self) -> list[str]:
        return [storage.join(root, _LABELS) for root in self.roots]
