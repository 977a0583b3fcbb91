"""What the sidecar parts hold of one hand, and its arrays in an npz file: MANO targets and detected 2D keypoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np

from maskhand.arrays import Array
from maskhand.sample import HandPose

TargetSource = Literal["annotated", "fitted", "keypoints", "predicted"]
"""Where the parameters of a target come from: the dataset, a fit to its joints, a fit to a detector's keypoints, or a
model."""

TargetFault = Literal[
    "", "few_fingers", "too_small", "far_off", "strange_shape", "not_finite", "not_seen", "unrecorded"
]
"""Why nothing learns from a target; empty when it is good. Of fits: too few fingers were observed, the hand is too
small, the fit is too far from what was observed, its shape or its numbers are impossible; of predictions: no keypoint
of the hand was found; of targets that an earlier version flagged: it did not write the reason down."""


@dataclass(frozen=True)
class ManoTarget:
    """MANO parameters of one hand to learn from, or to be measured against. An entry of the part `mano`."""

    pose: HandPose
    """In right-hand form (a left hand is seen in the mirror x = 0): absolute axis-angle, meters, OpenCV camera axes."""
    source: TargetSource
    mirrored: bool
    """Is the hand a left one?"""
    fault: TargetFault = ""
    residual_mm: float = math.nan
    """Mean distance to the annotated 3D joints; NaN where there is none to compare with, or keypoints were fitted."""
    residual_px: float = math.nan
    """Mean distance to the keypoints in the stored image; NaN unless they were fitted."""
    joints_seen: int = 0
    """Joints that the parameters were fitted to, 0 to 21 (`annotate.fit.evidence`); 0 where they were not fitted."""
    fingers_seen: int = 0
    """Fingers of which enough joints for a fit were seen, 0 to 5."""

    @property
    def is_good(self) -> bool:
        """Good enough to learn from."""
        return not self.fault

    def encode(self) -> dict[str, Array]:
        """The arrays of its npz file."""
        return {
            "pose_aa": self.pose.pose_aa,
            "betas": self.pose.betas,
            "transl_cam_m": self.pose.transl_cam_m,
            "residual_mm": np.array(self.residual_mm, np.float32),
            "residual_px": np.array(self.residual_px, np.float32),
            "joints_seen": np.array(self.joints_seen, np.int16),
            "fingers_seen": np.array(self.fingers_seen, np.int16),
            "ok": np.array(self.is_good),
            "fault": np.array(self.fault),
            "mirrored": np.array(self.mirrored),
            "source": np.array(self.source),
        }

    @classmethod
    def decode(cls, arrays: Mapping[str, Array]) -> Self:
        """The target that was encoded. Files of earlier versions say less about a fit; what they lack is unknown."""
        values: dict[str, Any] = {name: arrays[name].item() for name in _SCALARS if name in arrays}
        if "fault" not in values:
            values["fault"] = "" if arrays["ok"] else "unrecorded"
        return cls(HandPose(arrays["pose_aa"], arrays["betas"], arrays["transl_cam_m"]), **values)


_SCALARS = ("source", "mirrored", "fault", "residual_mm", "residual_px", "joints_seen", "fingers_seen")


@dataclass(frozen=True)
class DetectedKeypoints:
    """What a 2D detector saw of one hand. An entry of the part `keypoints.<detector>`; OpenPose order."""

    keypoints_px: Array
    """(21, 2) float32, pixels of the stored image, which is not mirrored (center of the top-left pixel = 0, 0)."""
    confidence: Array
    """(21,) float32 in 0..1; 0 = not found."""
    presence: float = 1.0
    """0..1, how sure the detector is that the box holds a hand."""
    right_probability: float = 0.5
    """0..1, how much it looks like a right hand; 0.5 where the detector cannot say."""
    z_px: Array | None = None
    """(21,) float32, depth behind the wrist in image pixels; None where the detector sees two dimensions only."""
    world_m: Array | None = None
    """(21, 3) float32, meters, axes of the image (x right, y down, z away from the camera), origin anywhere."""

    def encode(self) -> dict[str, Array]:
        """The arrays of its npz file."""
        return {name: np.asarray(value, np.float32) for name, value in vars(self).items() if value is not None}

    @classmethod
    def decode(cls, arrays: Mapping[str, Array]) -> Self:
        """The keypoints that were encoded; arrays of other names, which another program added, are passed over."""
        values: dict[str, Any] = {
            name: array if array.ndim else array.item() for name, array in arrays.items() if name in _DETECTED
        }
        return cls(**values)


_DETECTED = tuple(field.name for field in fields(DetectedKeypoints))
