"""DexYCB's published layout: subjects, sequences, eight cameras, a picture and an npz of labels per frame.

Planning reads a small YAML file per sequence and the calibration; the labels of a frame are read with its picture, in
the worker, which also finds out whether there is a hand in it at all.

Facts: FORMATS section 5; NVlabs/dex-ycb-toolkit README.md, dex_ycb_toolkit/{dex_ycb,hpe_eval}.py, layers/mano_layer.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Array,
    Item,
    RawDataError,
    RawPlan,
    axes_to_opencv,
    box_around,
    combined_digest,
    first_existing,
    joint_order,
    numbers,
    read_picture,
    spot_check,
)
from maskhand.adapters.dexycb_splits import SELECTIONS, SEQUENCES_PER_SUBJECT, SERIALS
from maskhand.adapters.label_files import field, read_npz_fields
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.yaml_files import YamlFile, read_yaml
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import Camera, HandPose, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_SUBJECT = re.compile(r"\d{8}-subject-(\d{2})")
_SIDES: tuple[Side, ...] = ("right", "left")


@dataclass(frozen=True)
class _Sequence:
    folder: str
    """`SUBJECT/SEQUENCE` below the dataset's folder."""
    subject: int
    """Counted from 1, as the folder's name does."""
    place: int
    """Among the sequences of its subject, counted from 0."""
    frames: int
    side: Side
    betas: Any


class DexYcbLayout:
    """`YYYYMMDD-subject-NN/SEQUENCE/{meta.yml,SERIAL/{color_*.jpg,labels_*.npz}}` and `calibration/`."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if split not in SELECTIONS:
            raise CatalogError(f"{spec.name}: the layout dexycb has splits {', '.join(SELECTIONS)}, not {split!r}")
        self.spec, self.root, self.split = spec, raw_dir, split
        self.selection = SELECTIONS[split]
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return storage.exists(self._intrinsics_uri(0)) and bool(self._subjects())

    def plan(self) -> RawPlan:
        cameras = sorted(self.selection.cameras)
        places = [first_existing([self._intrinsics_uri(c)], "camera intrinsics") for c in cameras]
        intrinsics = [_intrinsics(read_yaml(uri), uri) for uri in places]
        subjects = self._subjects()
        sequences, yaml_digests = self._sequences(subjects)
        # The official order: sequence by sequence, in it camera by camera, in it frame by frame.
        rows = np.concatenate(
            [
                np.stack(np.meshgrid(s, np.arange(len(cameras)), np.arange(q.frames), indexing="ij"), -1).reshape(-1, 3)
                for s, q in enumerate(sequences)
            ]
        )
        if not len(rows):
            raise RawDataError(f"{self.root}: the sequences of {self.split} have no frames; the dataset is incomplete")

        def place(position: int) -> tuple[_Sequence, int, int, str]:
            s, c, frame = (int(v) for v in rows[position])
            folder = storage.join(self.root, sequences[s].folder, SERIALS[cameras[c]])
            return sequences[s], c, frame, folder

        def item(position: int) -> Item:
            sequence, c, frame, folder = place(position)
            annotation = {
                "side": sequence.side,
                "betas": sequence.betas,
                "K": intrinsics[c][0],
                "label": storage.join(folder, f"labels_{frame:06d}.npz"),
            }
            origin = {
                "index": position,
                "subject": sequence.subject,
                "sequence": sequence.folder.rpartition("/")[2],
                "sequence_place": sequence.place,
                "camera": SERIALS[cameras[c]],
                "frame": frame,
            }
            return Item(keys[position], storage.join(folder, f"color_{frame:06d}.jpg"), annotation, origin)

        keys = [_key(self.split, sequences[s], SERIALS[cameras[c]], frame) for s, c, frame in rows.tolist()]
        spots = np.linspace(0, len(rows) - 1, min(16, len(rows))).astype(int)
        items = [item(int(position)) for position in spots]
        digest = combined_digest(
            f"dexycb layout {VERSION}",
            self.mano.digest() if self.mano else "no mano",
            *(sha256 for _, sha256 in intrinsics),
            *yaml_digests,
            spot_check([item.annotation["label"] for item in items]),
            spot_check([item.image_uri for item in items]),
        )
        absent = sorted(self.selection.subjects - subjects.keys())
        note = f"subjects {', '.join(f'{s + 1:02d}' for s in absent)} of {self.split} are not in {self.root}"
        return RawPlan(keys, item, digest, self.notes + ((note,) if absent else ()))

    def read(self, item: Item) -> HandSample:
        key, given = item.key, item.annotation
        label = read_npz_fields(key, given["label"], ("joint_3d", "pose_m"))
        stored = numbers(key, "joint_3d", field(key, label, "joint_3d"), (1, 21, 3))[0]
        if (stored == -1).all():
            raise SampleError("no_hand", f"{key}: no hand is in view (all joints are -1)")
        picture = read_picture(key, item.image_uri)
        camera = Camera(numbers(key, "intrinsics", given["K"], (3, 3)))
        joints = stored[joint_order(self.spec)] * axes_to_opencv(self.spec) * self.spec.metres_per_unit
        joints_2d = camera.project(joints)
        sample = HandSample(
            key=key,
            dataset=self.spec.name,
            image=picture.data,
            image_format=picture.format,
            image_size_px=picture.size_px,
            side=given["side"],
            box_xyxy_px=box_around(joints_2d),
            camera=camera,
            joints_2d_px=joints_2d.astype(np.float32),
            joints_2d_conf=np.ones(21, np.float32),
            joints_cam_m=joints.astype(np.float32),
            joints_3d_valid=np.ones(21, bool),
            mano=self._pose(key, label, given),
            origin=dict(item.origin),
        )
        sample.validate()
        return sample

    def _pose(self, key: str, label: Mapping[str, Any], given: Mapping[str, Any]) -> HandPose | None:
        """3 global rotation, 45 principal components, 3 translation; the shape belongs to the subject."""
        if self.mano is None:
            return None
        stored = numbers(key, "pose_m", field(key, label, "pose_m"), (1, 51))[0]
        if not stored.any():
            return None
        return self.mano.canonical(
            stored[:48],
            numbers(key, "betas", given["betas"], (10,)),
            given["side"],
            camera_from_stored=np.diag(axes_to_opencv(self.spec)),
            transl_m=stored[48:],
        )

    def _subjects(self) -> dict[int, str]:
        """Subjects of the split that are there, counted from 0 -> folder."""
        matches = [m for name in storage.list_folders(self.root) if (m := _SUBJECT.fullmatch(name))]
        found = {int(m[1]) - 1: m[0] for m in matches}
        return {subject: found[subject] for subject in sorted(found) if subject in self.selection.subjects}

    def _sequences(self, subjects: Mapping[int, str]) -> tuple[list[_Sequence], list[str]]:
        """The split's sequences in the official order, and the digests of the YAML files that describe them."""
        sequences, betas, digests = [], {}, []
        for subject, folder in subjects.items():
            names = storage.list_folders(storage.join(self.root, folder))
            if self.selection.needs_every_sequence and len(names) != SEQUENCES_PER_SUBJECT:
                raise RawDataError(
                    f"{storage.join(self.root, folder)} holds {len(names)} sequences; {self.split} chooses them by "
                    f"their place among all {SEQUENCES_PER_SUBJECT}, so unpack the whole subject or leave it out"
                )
            for position, name in enumerate(names):
                if position not in self.selection.sequences and self.selection.needs_every_sequence:
                    continue
                uri = first_existing([storage.join(self.root, folder, name, "meta.yml")], "the sequence's description")
                meta = read_yaml(uri)
                digests.append(meta.sha256)
                frames, side, calibration = _description(meta, uri)
                if calibration not in betas:
                    shape = read_yaml(first_existing([self._betas_uri(calibration)], "the subject's hand shape"))
                    betas[calibration] = shape.value.get("betas")
                    digests.append(shape.sha256)
                sequences.append(_Sequence(f"{folder}/{name}", subject + 1, position, frames, side, betas[calibration]))
        if not sequences:
            raise RawDataError(f"{self.root}: subjects of {self.split} not found; see how_to_get in the dataset's card")
        return sequences, digests

    def _intrinsics_uri(self, camera: int) -> str:
        return storage.join(self.root, "calibration", "intrinsics", f"{SERIALS[camera]}_640x480.yml")

    def _betas_uri(self, calibration: str) -> str:
        return storage.join(self.root, "calibration", f"mano_{calibration}", "mano.yml")


def _key(split: str, sequence: _Sequence, serial: str, frame: int) -> str:
    return f"{split}-{sequence.subject:02d}-{sequence.folder.rpartition('/')[2]}-{serial}-{frame:06d}"


def _intrinsics(file: YamlFile, uri: str) -> tuple[Array, str]:
    """(3, 3) of the colour camera, and the file's digest."""
    try:
        fx, fy, ppx, ppy = (float(file.value["color"][name]) for name in ("fx", "fy", "ppx", "ppy"))
    except (KeyError, TypeError, ValueError) as error:
        raise RawDataError(
            f"{uri}: expected color: fx, fy, ppx, ppy as numbers ({type(error).__name__}: {error})"
        ) from None
    return np.array([[fx, 0, ppx], [0, fy, ppy], [0, 0, 1]]), file.sha256


def _description(file: YamlFile, uri: str) -> tuple[int, Side, str]:
    """Frames, side and hand calibration of a sequence."""
    try:
        frames, side, calibration = file.value["num_frames"], file.value["mano_sides"][0], file.value["mano_calib"][0]
        if not isinstance(frames, int) or side not in _SIDES:
            raise ValueError(f"num_frames is {frames!r}, mano_sides[0] is {side!r}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RawDataError(
            f"{uri}: expected num_frames, mano_sides and mano_calib ({type(error).__name__}: {error})"
        ) from None
    return frames, side, str(calibration)
