"""InterHand2.6M's published layout: every hand of an image becomes a sample, two for an interacting image.

Facts: docs/formats.md#interhand26m.
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
    any_exists,
    axes_to_opencv,
    combined_digest,
    counting_rows,
    first_existing,
    hand_sample,
    joint_order,
    numbers,
    read_image,
    rotation,
    spot_check,
)
from maskhand.adapters.layouts.interhand26m_columns import FrameFits, FrameJoints, read_hands
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.columns import LazySequence
from maskhand.adapters.readers.split_files import SplitFile, read_json
from maskhand.catalog import DatasetSpec
from maskhand.conventions import INTERHAND_HANDS, Side
from maskhand.sample import Camera, HandPose, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_FILES = {"data": "images and boxes", "camera": "cameras", "joint_3d": "joints"}


class InterHandLayout:
    """`annotations/<split>/InterHand2.6M_<split>_*.json` and `images/<split>/...`, or all files flat in one folder."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.root, self.split = spec, raw_dir, split
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return any_exists(self._places("data"))

    def plan(self) -> RawPlan:
        places = {kind: first_existing(self._places(kind), what) for kind, what in _FILES.items()}
        hands, joints = read_hands(places["data"]), FrameJoints(places["joint_3d"])
        cameras = read_json(places["camera"])
        _check_cameras(cameras)
        fits_place = next((uri for uri in self._places("MANO_NeuralAnnot") if storage.exists(uri)), None)
        fits = FrameFits(fits_place) if fits_place and self.mano else None
        images, annotations = hands.images, hands.annotations
        files = places | ({"mano": fits_place} if fits_place else {})
        # In the official tree file_name is a path below images/<split>; small excerpts keep base names beside labels.
        official = places["data"] == self._places("data")[0]
        folder = storage.join(self.root, "images", self.split) if official else self.root

        def rows(position: int) -> tuple[int, int]:
            row = int(hands.annotation_rows[position])
            return row, int(hands.image_rows[row])

        def key(position: int) -> str:
            return f"{self.split}-{annotations.ids[rows(position)[0]]:08d}-{hands.side(position)[0]}"

        def image_uri(position: int) -> str:
            return storage.join(folder, images.paths[rows(position)[1]])

        def item(position: int) -> Item:
            row, image = rows(position)
            capture, frame, camera = images.captures[image], images.frames[image], images.cameras[image]
            side = hands.side(position)
            raw = {
                "side": side,
                "size": images.sizes_px[image],
                "joint_valid": annotations.joints_valid[row],
                "camera": {name: views.get(camera) for name, views in cameras.value.get(capture, {}).items()},
                "joints": joints.at(capture, frame),
                "mano": fits.at(capture, frame, side) if fits else None,
                "files": files,
            }
            origin = {
                "annotation": annotations.ids[row],
                "image": images.ids[image],
                "capture": capture,
                "sequence": images.sequences[image],
                "camera": camera,
                "frame": frame,
                "hand_type": annotations.hand_types[row],
                "hand_type_valid": annotations.hand_types_valid[row],
            }
            return Item(key(position), image_uri(position), raw, origin)

        digest = combined_digest(
            f"interhand layout {VERSION}",
            f"mano {fits.sha256} {self.mano.digest()}" if fits and self.mano else "no mano",
            *(f"{kind} {sha}" for kind, sha in zip(_FILES, (hands.sha256, cameras.sha256, joints.sha256), strict=True)),
            spot_check(LazySequence(len(hands), image_uri)),
        )
        notes = self.notes if fits_place else ()
        return RawPlan(LazySequence(len(hands), key), item, digest, notes, listed=len(images.ids))

    def read(self, item: Item) -> HandSample:
        key, raw, side = item.key, item.annotation, item.annotation["side"]
        camera, turn, position_m = self._camera(key, raw)
        stored_valid = self._valid(key, raw, side)
        image = read_image(key, item.image_uri)
        if image.size_px != tuple(raw["size"]):
            where = f"{key}: {raw['files']['data']}"
            raise SampleError("wrong_size", f"{where}: expected an image of {raw['size']}, it is {image.size_px}")
        where = f"{key}: {raw['files']['joint_3d']}"
        world = numbers(where, "world_coord", raw["joints"]["world_coord"], (42, 3), finite=False)
        world = counting_rows(where, "world_coord", world, stored_valid) * self.spec.meters_per_unit
        rows = np.arange(42)[INTERHAND_HANDS[side]][joint_order(self.spec)]
        return hand_sample(
            self.spec,
            item,
            image,
            side=side,
            camera=camera,
            joints_cam_m=(world[rows] - position_m) @ turn.T,
            joints_3d_valid=stored_valid[rows],
            mano=self._pose(key, raw, side, turn, position_m),
        )

    def _valid(self, key: str, raw: Mapping[str, Any], side: Side) -> np.ndarray:
        """(42,) bool, in the file's order: the annotated joints of this hand. As in the official loader, a hand without
        its wrist counts as not annotated."""
        data, joint_3d = (f"{key}: {raw['files'][kind]}" for kind in ("data", "joint_3d"))
        if raw["joints"] is None:
            raise SampleError("no_joints", f"{joint_3d}: expected an entry for this capture and frame, there is none")
        shape = (42, 1)
        both = numbers(data, "joint_valid", raw["joint_valid"], shape) * numbers(
            joint_3d, "joint_valid", raw["joints"]["joint_valid"], shape
        )
        own = np.arange(42)[INTERHAND_HANDS[side]][joint_order(self.spec)]
        valid = (both[:, 0] > 0) & np.isin(np.arange(42), own)
        if not valid[own[0]]:
            raise SampleError(
                "wrist_not_annotated",
                f"{data}: by joint_valid, here or in joint_3d, the {side} wrist is not annotated; the hand is not used",
            )
        return valid

    def _camera(self, key: str, raw: Mapping[str, Any]) -> tuple[Camera, np.ndarray, np.ndarray]:
        """Intrinsics, rotation world -> OpenCV camera (3, 3), and the camera's place in the world in meters (3,)."""
        stored, where = raw["camera"], f"{key}: {raw['files']['camera']}"
        missing = [name for name in ("focal", "princpt", "camrot", "campos") if stored.get(name) is None]
        if missing:
            raise SampleError(
                "no_camera", f"{where}: expected {', '.join(missing)} for this capture and camera, found nothing"
            )
        (fx, fy), (cx, cy) = (numbers(where, name, stored[name], (2,)) for name in ("focal", "princpt"))
        turn = axes_to_opencv(self.spec)[:, None] * rotation(where, "camrot", stored["camrot"])
        position_m = numbers(where, "campos", stored["campos"], (3,)) * self.spec.meters_per_unit
        return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), turn, position_m

    def _pose(
        self, key: str, raw: Mapping[str, Any], side: Side, turn: np.ndarray, position_m: np.ndarray
    ) -> HandPose | None:
        if self.mano is None or raw["mano"] is None:
            return None
        where = f"{key}: {raw['files']['mano']}"
        return self.mano.canonical(
            numbers(where, "pose", raw["mano"]["pose"], (48,)),
            numbers(where, "shape", raw["mano"]["shape"], (10,)),
            side,
            camera_from_stored=turn,
            origin_stored_m=position_m,
            transl_m=numbers(where, "trans", raw["mano"]["trans"], (3,)),
        )

    def _places(self, kind: str) -> list[str]:
        name = f"InterHand2.6M_{self.split}_{kind}.json"
        flat = f"{self.split}_interhand2.6m_{kind}.json"
        official = storage.join(self.root, "annotations", self.split, name)
        return [official, storage.join(self.root, name), storage.join(self.root, flat)]


def _check_cameras(file: SplitFile) -> None:
    """RawDataError for a file that is not capture -> field -> camera -> numbers."""
    captures = file.value
    found = "" if isinstance(captures, dict) else f"a {type(captures).__name__}"
    for capture, fields in captures.items() if isinstance(captures, dict) else ():
        if not isinstance(fields, dict) or not all(isinstance(views, dict) for views in fields.values()):
            found = f"another structure in capture {capture}"
    if found:
        raise RawDataError(
            f"{file.uri}: found {found}, expected cameras as "
            '{capture: {"campos" | "camrot" | "focal" | "princpt": {camera: numbers}}}; is this the right file?'
        )
