"""InterHand2.6M's published layout: every hand of an image becomes a sample, two for an interacting picture.

Facts: FORMATS section 4; facebookresearch/InterHand2.6M data/InterHand2.6M/dataset.py, tool/MANO_world_to_camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    JsonFile,
    RawDataError,
    RawPlan,
    any_exists,
    axes_to_opencv,
    box_around,
    combined_digest,
    first_existing,
    joint_order,
    numbers,
    read_json,
    read_picture,
    spot_check,
)
from maskhand.adapters.mano_pose import mano_reader
from maskhand.catalog import DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import Camera, HandPose, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_FIRST_JOINT: dict[Side, int] = {"right": 0, "left": 21}
_SIDES: dict[str, tuple[Side, ...]] = {"right": ("right",), "left": ("left",), "interacting": ("right", "left")}
_FILES = {"data": "pictures and boxes", "camera": "cameras", "joint_3d": "joints"}
_IMAGE_KEYS = {"file_name", "width", "height", "capture", "seq_name", "camera", "frame_idx"}
_ANNOTATION_KEYS = {"id", "joint_valid", "hand_type_valid"}


class InterHandLayout:
    """`annotations/<split>/InterHand2.6M_<split>_*.json` and `images/<split>/...`, or all files flat in one folder."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.root, self.split = spec, raw_dir, split
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return any_exists(self._places("data"))

    def plan(self) -> RawPlan:
        places = {kind: first_existing(self._places(kind), what) for kind, what in _FILES.items()}
        files = {kind: read_json(uri) for kind, uri in places.items()}
        mano = next((read_json(uri) for uri in self._places("MANO_NeuralAnnot") if storage.exists(uri)), None)
        images, hands = self._hands(files["data"])
        # In the official tree file_name is a path below images/<split>; small excerpts keep base names beside labels.
        official = places["data"] == self._places("data")[0]
        folder = storage.join(self.root, "images", self.split) if official else self.root
        cameras, joints = files["camera"].value, files["joint_3d"].value
        fits = mano.value if mano and self.mano else {}

        def item(position: int) -> Item:
            annotation, side = hands[position]
            image = images[annotation["image_id"]]
            capture, frame, camera = str(image["capture"]), str(image["frame_idx"]), str(image["camera"])
            raw = {
                "side": side,
                "size": (image["width"], image["height"]),
                "joint_valid": annotation["joint_valid"],
                "camera": {name: views.get(camera) for name, views in cameras.get(capture, {}).items()},
                "joints": joints.get(capture, {}).get(frame),
                "mano": (fits.get(capture, {}).get(frame) or {}).get(side),
            }
            origin = {
                "annotation": annotation["id"],
                "image": image["id"],
                "capture": capture,
                "sequence": image["seq_name"],
                "camera": camera,
                "frame": frame,
                "hand_type": annotation["hand_type"],
                "hand_type_valid": annotation["hand_type_valid"],
            }
            return Item(keys[position], storage.join(folder, image["file_name"]), raw, origin)

        keys = [f"{self.split}-{annotation['id']:08d}-{side[0]}" for annotation, side in hands]
        digest = combined_digest(
            f"interhand layout {VERSION}",
            f"mano {mano.sha256} {self.mano.digest()}" if mano and self.mano else "no mano",
            *(f"{kind} {file.sha256}" for kind, file in files.items()),
            spot_check([storage.join(folder, images[a["image_id"]]["file_name"]) for a, _ in hands]),
        )
        return RawPlan(keys, item, digest, self.notes if mano else ())

    def read(self, item: Item) -> HandSample:
        key, raw, side = item.key, item.annotation, item.annotation["side"]
        camera, rotation, position_m = self._camera(key, raw["camera"])
        valid = self._valid(key, raw, side)
        picture = read_picture(key, item.image_uri)
        if picture.size_px != tuple(raw["size"]):
            raise SampleError(
                "wrong_size", f"{key}: the picture is {picture.size_px}, its annotation says {raw['size']}"
            )
        world = numbers(key, "world_coord", raw["joints"]["world_coord"], (42, 3)) * self.spec.metres_per_unit
        world = world[_FIRST_JOINT[side] :][:21][joint_order(self.spec)]
        joints = (world - position_m) @ rotation.T
        # Joints without annotation hold a dummy position; zeros with a zero flag cannot be mistaken for one.
        joints = np.where(valid[:, None], joints, 0.0)
        joints_2d = np.zeros((21, 2))
        joints_2d[valid] = camera.project(joints[valid])
        sample = HandSample(
            key=key,
            dataset=self.spec.name,
            image=picture.data,
            image_format=picture.format,
            image_size_px=picture.size_px,
            side=side,
            box_xyxy_px=box_around(joints_2d[valid]),
            camera=camera,
            joints_2d_px=joints_2d.astype(np.float32),
            joints_2d_conf=valid.astype(np.float32),
            joints_cam_m=joints.astype(np.float32),
            joints_3d_valid=valid,
            mano=self._pose(key, raw, side, rotation, position_m),
            origin=dict(item.origin),
        )
        sample.validate()
        return sample

    def _valid(self, key: str, raw: Mapping[str, Any], side: Side) -> np.ndarray:
        """(21,) bool, OpenPose order. As in the official loader, a hand without its wrist counts as not annotated."""
        if raw["joints"] is None:
            raise SampleError("no_joints", f"{key}: joint_3d.json has no entry for this capture and frame")
        shape = (42, 1)
        both = numbers(key, "joint_valid", raw["joint_valid"], shape) * numbers(
            key, "joint_3d joint_valid", raw["joints"]["joint_valid"], shape
        )
        valid = (both[:, 0] > 0)[_FIRST_JOINT[side] :][:21][joint_order(self.spec)]
        if not valid[0]:
            raise SampleError(
                "wrist_not_annotated", f"{key}: the {side} wrist is not annotated, so the hand is not used"
            )
        return valid

    def _camera(self, key: str, raw: Mapping[str, Any]) -> tuple[Camera, np.ndarray, np.ndarray]:
        """Intrinsics, rotation world -> OpenCV camera (3, 3), and the camera's place in the world in metres (3,)."""
        missing = [name for name in ("focal", "princpt", "camrot", "campos") if raw.get(name) is None]
        if missing:
            raise SampleError(
                "no_camera", f"{key}: camera.json has no {', '.join(missing)} for this capture and camera"
            )
        (fx, fy), (cx, cy) = numbers(key, "focal", raw["focal"], (2,)), numbers(key, "princpt", raw["princpt"], (2,))
        rotation = axes_to_opencv(self.spec)[:, None] * numbers(key, "camrot", raw["camrot"], (3, 3))
        position_m = numbers(key, "campos", raw["campos"], (3,)) * self.spec.metres_per_unit
        return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), rotation, position_m

    def _pose(
        self, key: str, raw: Mapping[str, Any], side: Side, rotation: np.ndarray, position_m: np.ndarray
    ) -> HandPose | None:
        if self.mano is None or raw["mano"] is None:
            return None
        return self.mano.canonical(
            numbers(key, "MANO pose", raw["mano"]["pose"], (48,)),
            numbers(key, "MANO shape", raw["mano"]["shape"], (10,)),
            side,
            camera_from_stored=rotation,
            origin_stored_m=position_m,
            transl_m=numbers(key, "MANO trans", raw["mano"]["trans"], (3,)),
        )

    def _hands(self, data: JsonFile) -> tuple[dict[int, dict], list[tuple[dict, Side]]]:
        """Images by id, and (annotation, side) of every hand in the file's order."""
        name = f"{self.split} data.json under {self.root}"
        try:
            images = {image["id"]: image for image in data.value["images"]}
            hands = [(a, side) for a in data.value["annotations"] for side in _SIDES[a["hand_type"]]]
            orphan = next((a["id"] for a, _ in hands if a["image_id"] not in images), None)
            for entry, needed in ((data.value["images"], _IMAGE_KEYS), (data.value["annotations"], _ANNOTATION_KEYS)):
                for record in entry:
                    if absent := needed - record.keys():
                        raise KeyError(min(absent))
        except (KeyError, TypeError) as error:
            raise RawDataError(f"{name}: not InterHand2.6M's structure ({type(error).__name__}: {error})") from None
        if orphan is not None or not hands:
            detail = "no annotations" if not hands else f"annotation {orphan} names an image that is not listed"
            raise RawDataError(f"{name}: {detail}; the file is incomplete")
        return images, hands

    def _places(self, kind: str) -> list[str]:
        name = f"InterHand2.6M_{self.split}_{kind}.json"
        flat = f"{self.split}_interhand2.6m_{kind}.json"
        official = storage.join(self.root, "annotations", self.split, name)
        return [official, storage.join(self.root, name), storage.join(self.root, flat)]
