"""The labels of B samples, stacked and mirrored into right hands, still in the pixels of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskhand.conventions import MIRROR_POINT, NUM_BETAS, NUM_JOINTS, NUM_MANO_JOINTS
from maskhand.geometry2d import apply_affine, mirror_affine
from maskhand.sample import HandSample

Array = np.ndarray
Sidecar = Mapping[str, Array] | None
"""The entry of one sample in a sidecar part; None when the annotator rejected it or the part is not read."""


@dataclass(frozen=True)
class Labels:
    """What is known about B hands. Left hands (and their images) are mirrored; absent labels are zeros."""

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


def stack_labels(samples: Sequence[HandSample], keypoints: Sequence[Sidecar], mano: Sequence[Sidecar]) -> Labels:
    """Stack samples with their `keypoints.*` and `mano` sidecar entries.

    The mano sidecar already holds right-hand parameters (see `annotate.mano_targets`); the rest is mirrored here.
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
    # Without its wrist a hand has no origin to be relative to.
    valid = valid * valid[:, :1] * _present(s.joints_cam_m for s in samples)[:, None]
    joints_3d = (joints_3d - joints_3d[:, :1]) * valid[..., None]
    joints_3d[is_left] *= MIRROR_POINT

    has_mano = _present(mano)
    has_detection = _present(keypoints)
    detected_conf = _field(keypoints, "confidence", (NUM_JOINTS,)) * has_detection[:, None]
    return Labels(
        is_left=is_left,
        size_px=size,
        mirrored_from_image=mirror,
        box_xyxy_px=box,
        joints_2d_px=apply_affine(mirror, _stack([s.joints_2d_px for s in samples], (NUM_JOINTS, 2))),
        joints_2d_conf=conf_2d,
        joints_3d_m=joints_3d,
        joints_3d_valid=valid,
        pose_aa=_field(mano, "pose_aa", (NUM_MANO_JOINTS, 3)),
        betas=_field(mano, "betas", (NUM_BETAS,)),
        has_mano=has_mano,
        detected_px=apply_affine(mirror, _field(keypoints, "keypoints_px", (NUM_JOINTS, 2))),
        detected_conf=detected_conf,
    )


def good_target(entry: Sidecar) -> Sidecar:
    """The entry of a `mano` sidecar to learn from: None in the place of one with a fault."""
    return entry if entry is not None and bool(entry["ok"]) else None


def annotated_target(entry: Sidecar) -> Sidecar:
    """The entry of a `mano` sidecar to be measured against: None in the place of a fit of our own."""
    return entry if entry is not None and str(entry["source"]) == "annotated" else None


def _present(values) -> Array:
    return np.array([v is not None for v in values], np.float64)


def _stack(values: Sequence[Array | None], shape: tuple[int, ...], default: float = 0.0) -> Array:
    missing = np.full(shape, default)
    rows = np.concatenate([missing if v is None else v for v in values])
    return rows.reshape(len(values), *shape).astype(np.float64, copy=False)


def _field(entries: Sequence[Sidecar], name: str, shape: tuple[int, ...]) -> Array:
    return _stack([None if e is None else e[name] for e in entries], shape)
