"""The entry of one hand in the sidecar part `mano`, whoever makes it."""

from __future__ import annotations

import math

import numpy as np

from maskhand.sample import HandPose
from maskhand.shards.layout import TargetFault, TargetSource

Array = np.ndarray


def mano_entry(
    pose: HandPose,
    source: TargetSource,
    *,
    mirrored: bool,
    fault: TargetFault = "",
    residual_mm: float = math.nan,
    residual_px: float = math.nan,
    joints_seen: int = 0,
    fingers_seen: int = 0,
) -> dict[str, Array]:
    """The arrays of the entry: `pose` is in right-hand form, `mirrored` says that the hand is a left one.

    residual_mm, residual_px: mean distance to the 3D joints and to the keypoints; NaN where there is nothing to compare
    with. joints_seen, fingers_seen: what the parameters were fitted to (`annotate.fit.evidence`); 0 where they were
    not.
    """
    return {
        "pose_aa": pose.pose_aa,
        "betas": pose.betas,
        "transl_cam_m": pose.transl_cam_m,
        "residual_mm": np.array(residual_mm, np.float32),
        "residual_px": np.array(residual_px, np.float32),
        "joints_seen": np.array(joints_seen, np.int16),
        "fingers_seen": np.array(fingers_seen, np.int16),
        "ok": np.array(not fault),
        "fault": np.array(fault),
        "mirrored": np.array(mirrored),
        "source": np.array(source),
    }
