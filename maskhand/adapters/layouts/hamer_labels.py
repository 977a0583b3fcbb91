"""HaMeR's labels of one hand, the same in its training tars and its evaluation files.

Facts: docs/formats.md#hamer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand.adapters.base import numbers
from maskhand.adapters.keypoints_2d import marked_points
from maskhand.adapters.mano_pose import PALM, ManoReader
from maskhand.arrays import Array
from maskhand.catalog import DatasetSpec
from maskhand.conventions import NUM_BETAS, NUM_JOINTS, Side
from maskhand.sample import HandPose, SampleError


@dataclass(frozen=True)
class HamerLabels:
    """The stored labels of one hand, checked; absent ones are None."""

    side: Side
    keypoints_2d: Array | None
    """(21, 3) pixels and confidence."""
    keypoints_3d: Array | None
    """(21, 4) camera axes and confidence; only differences between joints mean something."""
    pose: Array | None
    """(48,) absolute axis-angle; None unless pose and shape are both marked as known."""
    betas: Array | None
    """(10,)"""
    center_px: Array
    """(2,) of the published box."""
    size_px: Array
    """(2,) of the published box."""

    @property
    def box_xyxy_px(self) -> Array:
        """(4,) float32, the published box."""
        return np.concatenate([self.center_px - self.size_px / 2, self.center_px + self.size_px / 2]).astype(np.float32)

    def joints(self, spec: DatasetSpec) -> dict[str, Any]:
        """The fields of `HandSample` that hold joints; joints without confidence are zeros with a zero flag."""
        fields: dict[str, Any] = {}
        if self.keypoints_2d is not None:
            known = self.keypoints_2d[:, 2] > 0
            fields["joints_2d_px"] = np.where(known[:, None], self.keypoints_2d[:, :2], 0)
            fields["joints_2d_conf"] = np.clip(self.keypoints_2d[:, 2], 0, 1)
        if self.keypoints_3d is not None and (self.keypoints_3d[:, 3] > 0).any():
            fields["joints_cam_m"] = self.keypoints_3d[:, :3] * spec.meters_per_unit
            fields["joints_3d_valid"] = self.keypoints_3d[:, 3] > 0
        return fields

    def mano(self, spec: DatasetSpec, reader: ManoReader | None) -> HandPose | None:
        """The canonical pose, placed by the palm's annotated joints; without any it stays where the model leaves it."""
        if reader is None or self.pose is None or self.betas is None:
            return None
        joints = np.zeros((NUM_JOINTS, 4)) if self.keypoints_3d is None else self.keypoints_3d
        palm = {joint: joints[joint, :3] * spec.meters_per_unit for joint in PALM if joints[joint, 3] > 0}
        return reader.canonical(
            self.pose,
            self.betas,
            self.side,
            camera_from_stored=np.eye(3),
            transl_m=None if palm else np.zeros(3),
            palm_cam_m=palm,
        )


def read_labels(where: str, stored: dict[str, Any], pixels_per_scale: float) -> HamerLabels:
    """Check the stored fields; SampleError where one has another shape or is not finite. For `where` see `numbers`.

    stored: the published names with their values, absent ones left out. pixels_per_scale: 200 in the tars, 1 in the
    evaluation files.
    """

    def optional(name: str, shape: tuple[int, ...]) -> Array | None:
        return numbers(where, name, stored[name], shape) if stored.get(name) is not None else None

    def marked(name: str, columns: int) -> Array | None:
        if stored.get(name) is None:
            return None
        return marked_points(where, name, numbers(where, name, stored[name], (NUM_JOINTS, columns), finite=False))

    known = _flag(where, stored, "has_hand_pose") and _flag(where, stored, "has_betas")
    scale = _flat(where, "scale", stored["scale"])
    size = np.broadcast_to(numbers(where, "scale", scale, (1,) if scale.size == 1 else (2,)), (2,)) * pixels_per_scale
    return HamerLabels(
        side="right" if _flag(where, stored, "right", absent=True) else "left",
        keypoints_2d=marked("keypoints_2d", 3),
        keypoints_3d=marked("keypoints_3d", 4),
        pose=optional("hand_pose", (48,)) if known else None,
        betas=optional("betas", (NUM_BETAS,)) if known else None,
        center_px=numbers(where, "center", stored["center"], (2,)),
        size_px=size,
    )


def _flag(where: str, stored: dict[str, Any], name: str, absent: bool = False) -> bool:
    value = stored.get(name)
    return absent if value is None else bool(numbers(where, name, _flat(where, name, value), (1,))[0] > 0)


def _flat(where: str, name: str, value: Any) -> Array:
    """A value that is published as a number, or as a list or an array around it."""
    try:
        return np.ravel(value)
    except ValueError:
        raise SampleError("wrong_shape", f"{where}: {name} is a list of lists of different lengths") from None
