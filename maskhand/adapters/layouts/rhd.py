"""RHD's published layout (Rendered Hand Pose v2): one pickle of annotations per split, two hands in every image.

Facts: docs/formats.md#rhd.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    axes_to_opencv,
    combined_digest,
    counting_rows,
    first_existing,
    hand_sample,
    joint_order,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.readers.label_files import field
from maskhand.adapters.readers.split_files import SplitFile, read_pickle
from maskhand.catalog import DatasetSpec
from maskhand.conventions import RHD_HANDS
from maskhand.geometry2d import tight_box
from maskhand.sample import Camera, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""


class RhdLayout:
    """`<split>/anno_<split>.pickle` and `<split>/color/%05d.png`."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.root, self.split = spec, raw_dir, split

    def present(self) -> bool:
        return storage.exists(self._annotation_uri())

    def plan(self) -> RawPlan:
        uri = first_existing([self._annotation_uri()], "the annotations")
        file = read_pickle(uri)
        annotations = _annotations(file)
        ids, sides = sorted(annotations), tuple(RHD_HANDS)

        def item(position: int) -> Item:
            image_id, side = ids[position // len(sides)], sides[position % len(sides)]
            annotation = {"side": side, "fields": annotations[image_id], "file": uri}
            return Item(keys[position], self._image(image_id), annotation, {"image": image_id, "hand": side})

        keys = [f"{self.split}-{image_id:05d}-{side[0]}" for image_id in ids for side in sides]
        digest = combined_digest(
            f"rhd layout {VERSION}",
            file.sha256,
            spot_check([self._image(image_id) for image_id in ids]),
        )
        return RawPlan(keys, item, digest, listed=len(ids))

    def read(self, item: Item) -> HandSample:
        key, side, fields = item.key, item.annotation["side"], item.annotation["fields"]
        where = f"{key}: {item.annotation['file']}"
        if not isinstance(fields, dict):
            raise SampleError("wrong_shape", f"{where}: the annotation is a {type(fields).__name__}, expected fields")
        rows, order = RHD_HANDS[side], joint_order(self.spec)
        # The other hand of the image need not be whole.
        own = np.isin(np.arange(42), np.arange(42)[rows])
        uv_vis = numbers(where, "uv_vis", field(where, fields, "uv_vis"), (42, 3), finite=False)
        uv_vis = counting_rows(where, "uv_vis", uv_vis, own)[rows][order]
        visible = uv_vis[:, 2] > 0
        if not visible.any():
            raise SampleError("not_visible", f"{where}: by uv_vis no joint of the {side} hand can be seen in the image")
        xyz = numbers(where, "xyz", field(where, fields, "xyz"), (42, 3), finite=False)
        xyz = counting_rows(where, "xyz", xyz, own)[rows][order]
        image = read_image(key, item.image_uri)
        return hand_sample(
            self.spec,
            item,
            image,
            side=side,
            # Hidden joints are as exact as visible ones, so the box holds the whole hand.
            box_xyxy_px=tight_box(uv_vis[:, :2]),
            camera=Camera(numbers(where, "K", field(where, fields, "K"), (3, 3))),
            joints_2d_px=uv_vis[:, :2],
            joints_2d_conf=visible,
            joints_cam_m=xyz * axes_to_opencv(self.spec) * self.spec.meters_per_unit,
        )

    def _annotation_uri(self) -> str:
        return storage.join(self.root, self.split, f"anno_{self.split}.pickle")

    def _image(self, image_id: int) -> str:
        return storage.join(self.root, self.split, "color", f"{image_id:05d}.png")


def _annotations(file: SplitFile) -> Mapping[int, Any]:
    """Image's number -> fields."""
    value = file.value
    if not isinstance(value, dict) or not value or not all(isinstance(name, int) for name in value):
        raise RawDataError(f"{file.uri}: expected a dictionary from image number to annotation")
    return value
