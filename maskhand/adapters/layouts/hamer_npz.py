"""HaMeR's evaluation files: one npz of labels per split, beside the images of the dataset it was made from.

Facts: docs/formats.md#hamer.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    any_exists,
    combined_digest,
    first_existing,
    hand_sample,
    read_image,
    spot_check,
)
from maskhand.adapters.layouts.hamer_labels import read_labels
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.npz_arrays import read_npz_arrays
from maskhand.arrays import Array
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.sample import HandSample

VERSION = 2
"""Raise it when the conversion changes, so that shards are built anew."""

_REQUIRED = ("imgname", "center", "scale")
_OPTIONAL = {
    "right": "right",
    "hand_keypoints_2d": "keypoints_2d",
    "hand_keypoints_3d": "keypoints_3d",
    "hand_pose": "hand_pose",
    "betas": "betas",
    "has_hand_pose": "has_hand_pose",
    "has_betas": "has_betas",
}
"""Name in the file -> name in HaMeR's training labels."""


class HamerNpzLayout:
    """`<split>.npz` (in `hamer_evaluation_data/` or directly) and the card's folder of images for the split."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if split not in spec.image_folders:
            raise CatalogError(f"{spec.name}: its card names no folder under image_folders for the split {split}")
        self.spec, self.split = spec, split
        self.root = storage.join(raw_dir, spec.image_folders[split])
        self.places = [storage.join(raw_dir, place, f"{split}.npz") for place in ("hamer_evaluation_data", "")]
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return any_exists(self.places)

    def plan(self) -> RawPlan:
        uri = first_existing(self.places, "the labels")
        data = storage.read_bytes(uri)
        columns = _columns(data, uri)
        images = [_text(name) for name in columns.pop("imgname").ravel()]
        keys = [f"{self.split}-{position:08d}" for position in range(len(images))]

        def item(position: int) -> Item:
            annotation = {"file": uri, "row": {name: column[position] for name, column in columns.items()}}
            origin = {"index": position, "imgname": images[position]}
            return Item(keys[position], storage.join(self.root, images[position]), annotation, origin)

        digest = combined_digest(
            f"hamer npz layout {VERSION}",
            self.mano.digest() if self.mano and "hand_pose" in columns else "no mano",
            hashlib.sha256(data).hexdigest(),
            spot_check([storage.join(self.root, image) for image in images]),
        )
        notes = self.notes if "hand_pose" in columns else ()
        return RawPlan(keys, item, digest, notes, listed=len(keys))

    def read(self, item: Item) -> HandSample:
        stored: dict[str, Any] = {_OPTIONAL.get(name, name): value for name, value in item.annotation["row"].items()}
        labels = read_labels(f"{item.key}: {item.annotation['file']}", stored, pixels_per_scale=1.0)
        image = read_image(item.key, item.image_uri)
        return hand_sample(
            self.spec,
            item,
            image,
            side=labels.side,
            # Its longer side is what HInt's PCK is measured in, so the published box stays.
            box_xyxy_px=labels.box_xyxy_px,
            mano=labels.mano(self.spec, self.mano),
            **labels.joints(self.spec),
        )


def _columns(data: bytes, uri: str) -> dict[str, Array]:
    """The known arrays of the file, all with a row per hand."""
    columns = read_npz_arrays(data, uri, (*_REQUIRED, *_OPTIONAL))
    for name in _REQUIRED:
        if name not in columns:
            raise RawDataError(
                f"{uri}: array {name!r} is missing; HaMeR's evaluation files have {', '.join(_REQUIRED)}"
            )
    count = columns["imgname"].size
    for name, column in columns.items():
        if column.ndim == 0 or len(column) != count:
            raise RawDataError(f"{uri}: {name} has shape {column.shape}, expected {count} rows, one per imgname")
    return columns


def _text(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)
