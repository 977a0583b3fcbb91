"""Boxes and affines in the pixels of an image: the one crop affine of loading, annotation, prediction and reports.

Pixel coordinates have their origin at the center of the top-left pixel. Affines are (2, 3), `crop_from_image` unless
named otherwise. A crop's center is `crop_px / 2` for the networks (0 in crop coordinates, see `batch`) and
`(crop_px - 1) / 2` for the detectors, whose models count from the middle of the crop's pixels.
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array


def tight_box(points_px: Array) -> Array:
    """(N, 2) points -> (4,) x0, y0, x1, y1 around them."""
    return np.concatenate([points_px.min(0), points_px.max(0)])


def box_center_px(box_xyxy_px: Array) -> Array:
    """(..., 4) -> (..., 2)."""
    box = np.asarray(box_xyxy_px, np.float64)
    return (box[..., :2] + box[..., 2:]) / 2


def box_iou(a_xyxy: Array, b_xyxy: Array) -> float:
    """Intersection over union of two boxes (4,)."""
    shared = np.clip(np.minimum(a_xyxy[2:], b_xyxy[2:]) - np.maximum(a_xyxy[:2], b_xyxy[:2]), 0, None).prod()
    union = (a_xyxy[2:] - a_xyxy[:2]).prod() + (b_xyxy[2:] - b_xyxy[:2]).prod() - shared
    return float(shared / union) if union > 0 else 0.0


def crop_affine(
    center_px: Array,
    side_px: Array,
    rotation_rad: Array,
    crop_px: int,
    *,
    center_at: float | None = None,
    mirrored: bool = False,
) -> Array:
    """(N, 2) centers, (N,) sides and (N,) rotations of squares -> (N, 2, 3) affines from image to crop pixels.

    A positive rotation turns the image's x axis towards its y axis: clockwise as seen. The square's center lands on
    `center_at` in x and y (None: `crop_px / 2`); a mirrored crop has its x axis reversed about it.
    """
    c, s = np.cos(rotation_rad), np.sin(rotation_rad)
    scale = crop_px / np.asarray(side_px, np.float64)
    linear = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2) * scale[:, None, None]
    if mirrored:
        linear[:, 0] *= -1
    center_at = crop_px / 2 if center_at is None else center_at
    offset = center_at - (linear @ np.asarray(center_px, np.float64)[:, :, None])
    return np.concatenate([linear, offset], axis=2)


def mirror_affine(width_px: Array) -> Array:
    """(N,) image widths -> (N, 2, 3): x becomes width - 1 - x."""
    affine = np.zeros((len(width_px), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1], affine[:, 0, 2] = -1, 1, np.asarray(width_px) - 1
    return affine


def compose(after: Array, before: Array) -> Array:
    """(N, 2, 3) and (N, 2, 3) -> (N, 2, 3): first `before`, then `after`."""
    linear = after[:, :, :2] @ before[:, :, :2]
    offset = after[:, :, :2] @ before[:, :, 2:] + after[:, :, 2:]
    return np.concatenate([linear, offset], axis=2)


def apply_affine(affine: Array, points: Array) -> Array:
    """(N, 2, 3) and (N, K, 2) -> (N, K, 2)."""
    return points @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2]
