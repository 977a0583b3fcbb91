"""DexYCB's published layout: subjects, sequences, eight cameras, an image and an npz of labels per frame.

The labels of a frame are read with its image, in the worker, which also finds out whether there is a hand at all.

Facts: docs/formats.md#dexycb.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawPlan,
    axes_to_opencv,
    combined_digest,
    hand_sample,
    joint_order,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.layouts.dexycb_index import Frame, intrinsics_uri, is_present, read_index
from maskhand.adapters.layouts.dexycb_label import label_uri, read_label
from maskhand.adapters.layouts.dexycb_splits import SELECTIONS
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.label_files import field
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.sample import Camera, HandPose, HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""


class DexYcbLayout:
    """`YYYYMMDD-subject-NN/SEQUENCE/{meta.yml,SERIAL/{color_*.jpg,labels_*.npz}}` and `calibration/`."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if split not in SELECTIONS:
            raise CatalogError(f"{spec.name}: the layout dexycb has splits {', '.join(SELECTIONS)}, not {split!r}")
        self.spec, self.root, self.split = spec, raw_dir, split
        self.selection = SELECTIONS[split]
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return is_present(self.root, self.selection)

    def plan(self) -> RawPlan:
        index = read_index(self.root, self.selection)
        absent = ", ".join(f"{subject:02d}" for subject in index.absent_subjects)

        def item(position: int) -> Item:
            # Places after an absent subject are not those of the official list.
            return self._item(index.frame(position), None if absent else position)

        spots = np.linspace(0, len(index) - 1, min(16, len(index))).astype(int)
        frames = [index.frame(int(position)) for position in spots]
        digest = combined_digest(
            f"dexycb layout {VERSION}",
            self.mano.digest() if self.mano else "no mano",
            *index.yaml_sha256,
            spot_check([self._label(frame) for frame in frames]),
            spot_check([self._image(frame) for frame in frames]),
        )
        notes = self.notes + ((f"subjects {absent} of {self.split} are absent",) if absent else ())
        return RawPlan([self._key(frame) for frame in index], item, digest, notes, listed=len(index))

    def read(self, item: Item) -> HandSample:
        key, given = item.key, item.annotation
        label = read_label(key, given["label"])
        where = f"{key}: {given['label']}"
        stored = numbers(where, "joint_3d", label.joints, (21, 3))
        if not label.has_hand:
            raise SampleError("no_hand", f"{where}: no hand is in view (all joints are -1)")
        image = read_image(key, item.image_uri)
        camera = Camera(numbers(f"{key}: {given['K_file']}", "color", given["K"], (3, 3)))
        joints = stored[joint_order(self.spec)] * axes_to_opencv(self.spec) * self.spec.meters_per_unit
        return hand_sample(
            self.spec,
            item,
            image,
            side=given["side"],
            camera=camera,
            joints_cam_m=joints,
            mano=self._pose(key, label.fields, given),
        )

    def _pose(self, key: str, label: Mapping[str, Any], given: Mapping[str, Any]) -> HandPose | None:
        """3 global rotation, 45 principal components, 3 translation; the shape belongs to the subject."""
        if self.mano is None:
            return None
        where = f"{key}: {given['label']}"
        stored = numbers(where, "pose_m", field(where, label, "pose_m"), (1, 51))[0]
        if not stored.any():
            return None
        return self.mano.canonical(
            stored[:48],
            numbers(f"{key}: {given['betas_file']}", "betas", given["betas"], (10,)),
            given["side"],
            camera_from_stored=np.diag(axes_to_opencv(self.spec)),
            transl_m=stored[48:],
        )

    def _item(self, frame: Frame, index: int | None) -> Item:
        sequence = frame.sequence
        annotation = {
            "side": sequence.side,
            "betas": sequence.betas,
            "betas_file": sequence.betas_file,
            "K": frame.K_px,
            "K_file": intrinsics_uri(self.root, frame.serial),
            "label": self._label(frame),
        }
        origin = {
            "index": index,
            "subject": sequence.subject,
            "sequence": sequence.name,
            "sequence_place": sequence.place,
            "camera": frame.serial,
            "frame": frame.number,
        }
        return Item(self._key(frame), self._image(frame), annotation, origin)

    def _key(self, frame: Frame) -> str:
        sequence = frame.sequence
        return f"{self.split}-{sequence.subject:02d}-{sequence.name}-{frame.serial}-{frame.number:06d}"

    def _image(self, frame: Frame) -> str:
        return storage.join(self.root, frame.folder, f"color_{frame.number:06d}.jpg")

    def _label(self, frame: Frame) -> str:
        return label_uri(self.root, frame)
