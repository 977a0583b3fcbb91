"""FreiHAND's published layout (v2), read with or without the separately released evaluation labels.

Facts: docs/formats.md#freihand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    any_exists,
    axes_to_opencv,
    combined_digest,
    first_existing,
    hand_sample,
    joint_order,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.split_files import SplitFile, read_json
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import Camera, HandPose, HandSample

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_LABELS = {"training": ("xyz", "mano"), "evaluation": ("xyz", "mano", "verts")}
"""Optional label files that are read beside K; training meshes are left out, MANO parameters give them."""


class FreiHandLayout:
    """`<split>/rgb/%08d.jpg` with lists `<split>_K.json`, `<split>_xyz.json`, ... of unique annotations."""

    side: Side

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if spec.handedness == "both" or split not in _LABELS:
            raise CatalogError(
                f"{spec.name}: the layout freihand has splits training and evaluation and one handedness, "
                f"the card has {split!r} and {spec.handedness!r}"
            )
        self.spec, self.split, self.side = spec, split, spec.handedness
        nested = storage.join(raw_dir, "FreiHAND_pub_v2")
        self.root = nested if storage.exists(storage.join(nested, f"{split}_K.json")) else raw_dir
        parent = self.root.rsplit("/", 1)[0] if "/" in self.root else "."
        self.label_folders = (self.root, *(storage.join(f, "FreiHAND_pub_v2_eval") for f in (self.root, parent)))
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return any_exists(self._places("K"))

    def plan(self) -> RawPlan:
        files = self._label_files()
        lists = {name: self._entries(name, file) for name, file in files.items()}
        unique = len(lists["K"])
        for name, entries in lists.items():
            if len(entries) != unique:
                raise RawDataError(
                    f"{self.split}_{name}.json under {self.root} has {len(entries)} entries, {self.split}_K.json has "
                    f"{unique}; the files belong to different versions or one of them is incomplete"
                )
        count = unique * self.spec.images_per_annotation.get(self.split, 1)

        places = {name: file.uri for name, file in files.items()}

        def item(position: int) -> Item:
            annotation = {name: entries[position % unique] for name, entries in lists.items()} | {"files": places}
            return Item(self._key(position), self._image(position), annotation, {"index": position})

        absent = [name for name in _LABELS[self.split] if name not in lists]
        notes = self.notes + tuple(f"{self.split}_{name}.json is absent: samples have no such label" for name in absent)
        digest = combined_digest(
            f"freihand layout {VERSION}",
            self.mano.digest() if self.mano and "mano" in lists else "no mano",
            *(f"{name} {file.sha256}" for name, file in sorted(files.items())),
            spot_check([self._image(i) for i in range(count)]),
        )
        return RawPlan([self._key(i) for i in range(count)], item, digest, notes, listed=count)

    def read(self, item: Item) -> HandSample:
        given, scale = item.annotation, self.spec.meters_per_unit * axes_to_opencv(self.spec)
        image = read_image(item.key, item.image_uri)
        camera = Camera(_stored(item, "K", (3, 3)))
        joints = _stored(item, "xyz", (21, 3))[joint_order(self.spec)] * scale if "xyz" in given else None
        return hand_sample(
            self.spec,
            item,
            image,  # a crop around the hand, and so the box of hands without joints
            side=self.side,
            camera=camera,
            joints_cam_m=joints,
            vertices_cam_m=_stored(item, "verts", (778, 3)) * scale if "verts" in given else None,
            mano=self._pose(item, joints),
        )

    def _pose(self, item: Item, joints_cam_m: np.ndarray | None) -> HandPose | None:
        """48 pose, 10 betas, 2 uv_root, 1 scale; the root they encode is joint 9, which is annotated as well."""
        if self.mano is None or joints_cam_m is None or "mano" not in item.annotation:
            return None
        theta = _stored(item, "mano", (1, 61))[0]
        return self.mano.canonical(
            theta[:48],
            theta[48:58],
            self.side,
            camera_from_stored=np.diag(axes_to_opencv(self.spec)),
            palm_cam_m={9: joints_cam_m[9]},
        )

    def _label_files(self) -> dict[str, SplitFile]:
        files = {"K": read_json(first_existing(self._places("K"), "camera matrices"))}
        for name in _LABELS[self.split]:
            for uri in self._places(name):
                if storage.exists(uri):
                    files[name] = read_json(uri)
                    break
        return files

    def _places(self, name: str) -> list[str]:
        return [storage.join(folder, f"{self.split}_{name}.json") for folder in self.label_folders]

    def _entries(self, name: str, file: SplitFile) -> Sequence[Any]:
        if not isinstance(file.value, list) or not file.value:
            raise RawDataError(
                f"{self.split}_{name}.json under {self.root}: expected a list with an entry per annotation"
            )
        return file.value

    def _key(self, position: int) -> str:
        return f"{self.split}-{position:08d}"

    def _image(self, position: int) -> str:
        return storage.join(self.root, self.split, "rgb", f"{position:08d}.jpg")


def _stored(item: Item, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The item's entry in `<split>_<name>.json`; errors as in `numbers`."""
    return numbers(f"{item.key}: {item.annotation['files'][name]}", name, item.annotation[name], shape)
