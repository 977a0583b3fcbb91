"""Monocular Total Capture's layout (CMU Panoptic Studio, a4): 3D hands of people seen by up to 31 HD cameras.

Every view in which a hand is fully visible becomes a sample. Facts: docs/formats.md#mtc.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawPlan,
    any_exists,
    axes_to_opencv,
    combined_digest,
    first_existing,
    hand_sample,
    joint_order,
    numbers,
    read_image,
    rotation,
    spot_check,
)
from maskhand.adapters.keypoints_2d import key_of
from maskhand.adapters.layouts.mtc_views import View, check_unit, checked_hands, visible_views
from maskhand.adapters.lens import local_pinhole, project
from maskhand.adapters.readers.columns import LazySequence
from maskhand.adapters.readers.label_files import field
from maskhand.adapters.readers.split_files import read_pickle
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.sample import Camera, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_PARTS = {"training": "training_data", "testing": "testing_data"}
_LABELS = ("annotation.pkl", "a4_collected.pkl")
_CAMERAS = ("camera_data.pkl", "camera_data_a4.pkl")
_CHECKS = "a4_hands_annotated.txt"


class MtcLayout:
    """`annotation.pkl`, `camera_data.pkl` and `hdImgs/SEQ/FRAME/00_CC_FRAME.jpg`, perhaps below `a4_release`."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if split not in _PARTS:
            raise CatalogError(f"{spec.name}: the layout mtc has splits {', '.join(_PARTS)}, the card has {split!r}")
        self.spec, self.split = spec, split
        self.roots = (raw_dir, storage.join(raw_dir, "a4_release"))

    def present(self) -> bool:
        return any_exists(self._places(_LABELS))

    def plan(self) -> RawPlan:
        labels = first_existing(self._places(_LABELS), "annotations")
        cameras = first_existing(self._places(_CAMERAS), "cameras")
        people, sequences = read_pickle(labels), read_pickle(cameras)
        sha256 = people.sha256, sequences.sha256
        checks_uri = storage.join(labels.rpartition("/")[0], _CHECKS)
        checks = storage.read_bytes(checks_uri) if storage.exists(checks_uri) else None
        wrong = checked_hands(checks.decode("utf-8-sig", "replace"), checks_uri) if checks is not None else frozenset()
        views, hands = visible_views(people.value, _PARTS[self.split], labels, wrong)
        del people
        check_unit(hands, self.spec, labels)
        images = storage.join(labels.rpartition("/")[0], "hdImgs")

        def uri(position: int) -> str:
            view = views[position]
            return storage.join(images, view.sequence, view.frame, f"00_{view.camera:02d}_{view.frame}.jpg")

        def key(position: int) -> str:
            view = views[position]
            name = f"{view.sequence}_{view.frame}_{view.camera:02d}_{view.person}"
            return f"{key_of(self.split, name)}-{view.side[0]}"

        def item(position: int) -> Item:
            view: View = views[position]
            camera = _member(_member(sequences.value, view.sequence), view.camera)
            raw = {"side": view.side, "landmarks": hands[view.hand], "camera": camera, "files": (labels, cameras)}
            origin = {"sequence": view.sequence, "frame": view.frame, "camera": view.camera, "person": view.person}
            return Item(key(position), uri(position), raw, origin)

        digest = combined_digest(
            f"mtc layout {VERSION}",
            *sha256,
            hashlib.sha256(checks or b"").hexdigest(),
            spot_check(LazySequence(len(views), uri)),
        )
        note = f"{_CHECKS} is absent: hands that its authors marked as wrong are included"
        return RawPlan(LazySequence(len(views), key), item, digest, () if checks is not None else (note,))

    def read(self, item: Item) -> HandSample:
        key, side, camera = item.key, item.annotation["side"], item.annotation["camera"]
        in_labels, where = (f"{key}: {file}" for file in item.annotation["files"])
        if not isinstance(camera, Mapping):
            sequence, number = item.origin["sequence"], item.origin["camera"]
            raise SampleError("no_camera", f"{where}: expected camera {number} of {sequence}, there is none")
        K = numbers(where, "K", field(where, camera, "K"), (3, 3))
        Camera(K).check(where)
        turn = rotation(where, "R", field(where, camera, "R"))
        translation = numbers(where, "t", np.ravel(field(where, camera, "t")), (3,))
        lens = numbers(where, "distCoef", np.ravel(field(where, camera, "distCoef")), (5,))
        stored = numbers(in_labels, "landmarks", item.annotation["landmarks"], (63,)).reshape(21, 3)
        joints = stored[joint_order(self.spec)] @ turn.T + translation
        joints = joints * axes_to_opencv(self.spec) * self.spec.meters_per_unit
        if (joints[:, 2] <= 0).any():
            raise SampleError("behind_camera", f"{where}: joints lie behind the camera; do the files belong together?")
        joints_2d = project(joints, K, lens)
        image = read_image(key, item.image_uri)
        return hand_sample(
            self.spec,
            item,
            image,
            side=side,
            # The published matrix leaves out the lens and misses hands near the border by tens of pixels.
            camera=local_pinhole(joints.mean(axis=0), K, lens),
            joints_2d_px=joints_2d,
            joints_cam_m=joints,
        )

    def _places(self, names: tuple[str, ...]) -> list[str]:
        return [storage.join(root, name) for root in self.roots for name in names]


def _member(mapping: Any, name: Any) -> Any:
    return mapping.get(name) if isinstance(mapping, Mapping) else None
