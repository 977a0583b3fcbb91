"""The label file of one DexYCB frame: read here for shards and for scoring alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from maskhand import storage
from maskhand.adapters.layouts.dexycb_index import Frame
from maskhand.adapters.readers.label_files import field, read_npz_fields
from maskhand.arrays import Array
from maskhand.sample import SampleError

NO_HAND = -1.0
"""Every coordinate of a frame in which no hand is in view."""
_SHAPE = (1, 21, 3)


@dataclass(frozen=True)
class FrameLabel:
    """The content of a label file, unconverted."""

    joints: Array
    """(21, 3) meters, camera axes, in the file's own precision; all `NO_HAND` where there is no hand."""
    fields: Mapping[str, Array]
    """`pose_m` (1, 51), where it is there."""

    @property
    def has_hand(self) -> bool:
        return not bool((self.joints == NO_HAND).all())


def label_uri(root: str, frame: Frame) -> str:
    """The label file of a frame."""
    return storage.join(root, frame.folder, f"labels_{frame.number:06d}.npz")


def read_label(key: str, uri: str) -> FrameLabel:
    """The label of the frame `key`; SampleError, with a countable reason, for a file that cannot be used."""
    fields = read_npz_fields(key, uri, ("joint_3d", "pose_m"))
    joints = field(f"{key}: {uri}", fields, "joint_3d")
    if np.shape(joints) != _SHAPE:
        raise SampleError("wrong_shape", f"{key}: {uri}: joint_3d has shape {np.shape(joints)}, expected {_SHAPE}")
    return FrameLabel(joints[0], fields)
