"""HO-3D's published layout (v2, v3) and H2O-3D's, which has the same files with two hands in each.

`<split>.txt` lists the annotated frames, the label of a frame is a Python 2 pickle of its own and is read with its
image, in the worker. Evaluation labels hold a box and the wrist; the rest lies in lists that were released later.

Facts: docs/formats.md#ho-3d.
"""

from __future__ import annotations

import re
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
    first_existing,
    hand_sample,
    is_readable,
    joint_order,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.json_rows import JsonRows, read_json_rows
from maskhand.adapters.readers.label_files import field, read_pickled_fields
from maskhand.arrays import Array
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import Camera, HandPose, HandSample

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_HANDS: dict[str, dict[Side, str]] = {
    "right": {"right": "hand"},
    "both": {"right": "rightHand", "left": "leftHand"},
}
"""Handedness of the card -> side -> how the names of its fields begin; betas are `handBeta` in either case."""

_SPLITS = ("train", "evaluation")
_RELEASED = ("xyz", "verts")
"""Evaluation truth, a list per file in the order of evaluation.txt (there is none for two-handed frames)."""

_LINE = re.compile(r"([\w-]+)/(\d+)")
_PROBES = 16


class Ho3dLayout:
    """`<split>.txt` with lines `SEQUENCE/FRAME`, `<split>/SEQUENCE/{rgb,meta}/FRAME.*`."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if spec.handedness not in _HANDS or split not in _SPLITS:
            raise CatalogError(
                f"{spec.name}: the layout ho3d has splits train and evaluation with right or both hands, the card has "
                f"{split!r} and {spec.handedness!r}"
            )
        self.spec, self.root, self.split = spec, raw_dir, split
        self.hands = _HANDS[spec.handedness]
        self.mano, self.notes = mano_reader(spec) if split == "train" else (None, ())

    def present(self) -> bool:
        return storage.exists(self._list_uri())

    def plan(self) -> RawPlan:
        list_uri = first_existing([self._list_uri()], "the list of annotated frames")
        frames = self._frames(list_uri)
        places = {name: storage.join(self.root, f"evaluation_{name}.json") for name in _RELEASED}
        released = self._released(places, len(frames))
        suffix = self._image_suffix(frames)
        sides = tuple(self.hands)

        def frame_uri(frame: tuple[str, str], folder: str, ending: str) -> str:
            return storage.join(self.root, self.split, frame[0], folder, f"{frame[1]}.{ending}")

        def item(position: int) -> Item:
            index, side = position // len(sides), sides[position % len(sides)]
            frame = frames[index]
            annotation: dict[str, Any] = {"side": side, "label": frame_uri(frame, "meta", "pkl")}
            annotation |= {name: (places[name], file.rows[index]) for name, file in released.items()}
            origin = {"index": index, "sequence": frame[0], "frame": frame[1]}
            return Item(keys[position], frame_uri(frame, "rgb", suffix), annotation, origin)

        ends = [""] if len(sides) == 1 else [f"-{side[0]}" for side in sides]
        keys = [f"{self.split}-{sequence}-{frame}{end}" for sequence, frame in frames for end in ends]
        digest = combined_digest(
            f"ho3d layout {VERSION}",
            self.mano.digest() if self.mano else "no mano",
            storage.sha256(list_uri),
            *(f"{name} {file.sha256}" for name, file in sorted(released.items())),
            spot_check([frame_uri(frame, "meta", "pkl") for frame in frames]),
            spot_check([frame_uri(frame, "rgb", suffix) for frame in frames]),
        )
        return RawPlan(keys, item, digest, self.notes, listed=len(frames))

    def read(self, item: Item) -> HandSample:
        key, side = item.key, item.annotation["side"]
        label = read_pickled_fields(key, item.annotation["label"])
        where = f"{key}: {item.annotation['label']}"
        camera = Camera(numbers(where, "camMat", field(where, label, "camMat"), (3, 3)))
        to_opencv = axes_to_opencv(self.spec) * self.spec.meters_per_unit
        joints, valid = self._joints(item, label, side)
        vertices = None
        if "verts" in item.annotation:
            place, stored = item.annotation["verts"]
            vertices = numbers(f"{key}: {place}", "verts", stored, (778, 3)) * to_opencv
        image = read_image(key, item.image_uri)
        return hand_sample(
            self.spec,
            item,
            image,
            side=side,
            box_xyxy_px=self._box(where, label, side),
            camera=camera,
            joints_cam_m=joints * to_opencv,
            joints_3d_valid=valid,
            vertices_cam_m=vertices,
            mano=self._pose(where, label, side),
        )

    def _joints(self, item: Item, label: Mapping[str, Any], side: Side) -> tuple[Array, Array]:
        """(21, 3) joints in the dataset's axes but OpenPose order, and (21,) which of them are known."""
        if "xyz" in item.annotation:
            place, stored = item.annotation["xyz"]
            name, where = "xyz", f"{item.key}: {place}"
        else:
            name, where = f"{self.hands[side]}Joints3D", f"{item.key}: {item.annotation['label']}"
            stored = field(where, label, name)
        if isinstance(stored, np.ndarray) and stored.shape == (3,):  # evaluation: the wrist alone
            wrist_only = np.zeros((21, 3))
            wrist_only[0] = numbers(where, name, stored, (3,))
            return wrist_only, np.arange(21) == 0
        return numbers(where, name, stored, (21, 3))[joint_order(self.spec)], np.ones(21, bool)

    def _box(self, where: str, label: Mapping[str, Any], side: Side) -> Array | None:
        """Evaluation labels name the box that the benchmark gives; training labels have none."""
        name = f"{self.hands[side]}BoundingBox"
        if self.split == "evaluation":
            return numbers(where, name, field(where, label, name), (4,))
        return None

    def _pose(self, where: str, label: Mapping[str, Any], side: Side) -> HandPose | None:
        if self.mano is None:
            return None
        pose, trans = f"{self.hands[side]}Pose", f"{self.hands[side]}Trans"
        return self.mano.canonical(
            numbers(where, pose, field(where, label, pose), (48,)),
            numbers(where, "handBeta", field(where, label, "handBeta"), (10,)),
            side,
            camera_from_stored=np.diag(axes_to_opencv(self.spec)),
            transl_m=numbers(where, trans, field(where, label, trans), (3,)),
        )

    def _frames(self, list_uri: str) -> list[tuple[str, str]]:
        """(sequence, frame) of every listed frame. Frames that are not listed have empty labels."""
        frames = []
        for number, line in enumerate(storage.read_bytes(list_uri).decode("utf-8-sig", "replace").split("\n"), 1):
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise RawDataError(f"{list_uri}: line {number} is {line.strip()[:40]!r}, expected SEQUENCE/FRAME")
            frames.append((match[1], match[2]))
        if not frames:
            raise RawDataError(f"{list_uri}: the list of annotated frames is empty; copy it again")
        return frames

    def _released(self, places: Mapping[str, str], count: int) -> dict[str, JsonRows]:
        """Evaluation truth beside the list, where it was downloaded."""
        if self.split != "evaluation" or len(self.hands) > 1:
            return {}
        files = {name: read_json_rows(uri) for name, uri in places.items() if storage.exists(uri)}
        for name, file in files.items():
            if len(file.rows) != count:
                raise RawDataError(
                    f"{places[name]} has {len(file.rows)} entries, evaluation.txt lists {count} frames; the files "
                    "belong to different versions of the dataset"
                )
        return files

    def _image_suffix(self, frames: list[tuple[str, str]]) -> str:
        """`png` in v2, `jpg` since; decided by the files, since copies were made in either format."""
        for position in np.linspace(0, len(frames) - 1, min(_PROBES, len(frames))).astype(int):
            sequence, frame = frames[position]
            for suffix in ("jpg", "png"):
                if is_readable(storage.join(self.root, self.split, sequence, "rgb", f"{frame}.{suffix}")):
                    return suffix
        return "jpg"

    def _list_uri(self) -> str:
        return storage.join(self.root, f"{self.split}.txt")
