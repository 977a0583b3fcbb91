"""The stacked labels of B samples, mirrored to right hands, in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import MIRROR_POINT, NUM_BETAS, NUM_JOINTS, NUM_MANO_JOINTS
from maskhand.geometry2d import apply_affine, mirror_affine
from maskhand.sample import HandSample
from maskhand.shards.sidecar_records import DetectedKeypoints, ManoTarget


@dataclass(frozen=True)
class Labels:
    """The labels of B hands. Left hands (and their images) are mirrored; missing labels are zeros."""

    is_left: Array
    """(B,) bool."""
    size_px: Array
    """(B, 2) int64, width and height of the image."""
    mirrored_from_image: Array
    """(B, 2, 3) affine: identity for right hands, x -> width - 1 - x for left ones."""
    box_xyxy_px: Array
    """(B, 4)."""
    joints_2d_px: Array
    """(B, 21, 2)."""
    joints_2d_conf: Array
    """(B, 21)."""
    joints_3d_m: Array
    """(B, 21, 3) relative to the wrist, camera axes."""
    joints_3d_valid: Array
    """(B, 21) 0 or 1."""
    pose_aa: Array
    """(B, 16, 3) absolute axis-angle."""
    betas: Array
    """(B, 10)."""
    has_mano: Array
    """(B,) 0 or 1."""
    detected_px: Array
    """(B, 21, 2) keypoints of the detector."""
    detected_conf: Array
    """(B, 21)."""
    detected_z_px: Array
    """(B, 21) depth behind the wrist in pixels of the image; zeros for a 2D detector."""
    detected_world_m: Array
    """(B, 21, 3) relative to the wrist, axes of the image; zeros for a 2D detector."""


def stack_labels(
    samples: Sequence[HandSample], keypoints: Sequence[DetectedKeypoints | None], mano: Sequence[ManoTarget | None]
) -> Labels:
    """Stack samples with their detected keypoints and MANO targets (None: missing).

    Targets already hold right-hand parameters (see `annotate.mano_targets`); everything else is mirrored here.
    """
    batch = len(samples)
    is_left = np.array([s.side == "left" for s in samples])
    size = np.array([s.image_size_px for s in samples], np.int64)
    mirror = np.tile(np.eye(2, 3), (batch, 1, 1))
    mirror[is_left] = mirror_affine(size[is_left, 0])

    corners = apply_affine(mirror, np.stack([s.box_xyxy_px for s in samples]).reshape(batch, 2, 2).astype(np.float64))
    box = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    has_2d = _present(s.joints_2d_px for s in samples)
    conf_2d = _stack([s.joints_2d_conf for s in samples], (NUM_JOINTS,), default=1.0) * has_2d[:, None]
    joints_3d = _stack([s.joints_cam_m for s in samples], (NUM_JOINTS, 3))
    valid = _stack([s.joints_3d_valid for s in samples], (NUM_JOINTS,), default=1.0)
    # Joints are relative to the wrist: without a valid wrist no joint is valid.
    valid = valid * valid[:, :1] * _present(s.joints_cam_m for s in samples)[:, None]
    joints_3d = (joints_3d - joints_3d[:, :1]) * valid[..., None]
    joints_3d[is_left] *= MIRROR_POINT

    has_mano = _present(mano)
    has_detection = _present(keypoints)
    detected_conf = (
        _stack([None if k is None else k.confidence for k in keypoints], (NUM_JOINTS,)) * has_detection[:, None]
    )
    detected_px = _stack([None if k is None else k.keypoints_px for k in keypoints], (NUM_JOINTS, 2))
    detected_z = _stack([None if k is None else k.z_px for k in keypoints], (NUM_JOINTS,))
    detected_world = _stack([None if k is None else k.world_m for k in keypoints], (NUM_JOINTS, 3))
    detected_world[is_left] *= MIRROR_POINT
    return Labels(
        is_left=is_left,
        size_px=size,
        mirrored_from_image=mirror,
        box_xyxy_px=box,
        joints_2d_px=apply_affine(mirror, _stack([s.joints_2d_px for s in samples], (NUM_JOINTS, 2))),
        joints_2d_conf=conf_2d,
        joints_3d_m=joints_3d,
        joints_3d_valid=valid,
        pose_aa=_stack([None if t is None else t.pose.pose_aa for t in mano], (NUM_MANO_JOINTS, 3)),
        betas=_stack([None if t is None else t.pose.betas for t in mano], (NUM_BETAS,)),
        has_mano=has_mano,
        detected_px=apply_affine(mirror, detected_px),
        detected_conf=detected_conf,
        detected_z_px=detected_z - detected_z[:, :1],
        detected_world_m=detected_world - detected_world[:, :1],
    )


def good_target(target: ManoTarget | None) -> ManoTarget | None:
    """The entry of a `mano` sidecar as a training target; None if it has a fault."""
    return target if target is not None and target.is_good else None


def annotated_target(target: ManoTarget | None) -> ManoTarget | None:
    """The entry of a `mano` sidecar as evaluation ground truth; None if it is not annotated (a fit or prediction)."""
    return target if target is not None and target.source == "annotated" else None


def _present(values) -> Array:
    return np.array([v is not None for v in values], np.float64)


def _stack(values: Sequence[Array | None], shape: tuple[int, ...], default: float = 0.0) -> Array:
    missing = np.full(shape, default)
    rows = np.concatenate([missing if v is None else v for v in values])
    return rows.reshape(len(values), *shape).astype(np.float64, copy=False)
