"""HaMeR's crop camera (s, tx, ty) and its way to a full-image camera.

Lengths in the crop are measured in crop sides, so focal lengths are too: HaMeR's 5000 px on a 256 px crop is
`FOCAL` = 5000 / 256 whatever the crop's resolution. Crop coordinates run over -0.5..0.5 (see `batch`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

FOCAL: Final = 5000 / 256
"""Focal length of the crop camera in crop sides."""

MIN_SEEN: Final = 6
"""Keypoints that say where a hand is and how large."""


def assumed_camera(size_px: tuple[int, int], focal_px: float | None = None) -> np.ndarray:
    """(3, 3) float64 K, pixels, of a picture (width, height) whose camera is unknown: it looks at the picture's middle.

    Without a focal length HaMeR's: the crop camera's, on the picture's longer side.
    """
    width, height = size_px
    focal = FOCAL * max(width, height) if focal_px is None else focal_px
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float64)


def crop_camera_translation(camera: Tensor, focal: float | Tensor = FOCAL) -> Tensor:
    """Where the hand stands before the crop camera.

    camera (B, 3): s, tx, ty; s is the weak-perspective scale (crop half-sides per metre). Returns (B, 3) metres:
    [tx, ty, 2 f / (s + 1e-9)] (HaMeR `hamer.py` with f / 256 = focal).
    """
    scale, tx, ty = camera.unbind(-1)
    return torch.stack([tx, ty, 2 * focal / (scale + 1e-9)], dim=-1)


def project_crop(points_m: Tensor, camera: Tensor, focal: float | Tensor = FOCAL) -> Tensor:
    """(B, N, 3) points before translation, metres, and (B, 3) crop camera -> (B, N, 2) crop coordinates."""
    translated = points_m + crop_camera_translation(camera, focal)[:, None]
    if isinstance(focal, Tensor):
        focal = focal[:, None, None]
    return focal * translated[..., :2] / translated[..., 2:]


def camera_on_keypoints(camera: Tensor, joints_m: Tensor, keypoints_2d: Tensor) -> Tensor:
    """The crop camera under which the hand has the size and the place of its seen 2D keypoints.

    camera (B, 3) is kept where fewer than `MIN_SEEN` keypoints are seen; joints_m (B, K, 3) before translation;
    keypoints_2d (B, K, 3) crop coordinates and confidence, the weight. The scale is the ratio of the spreads, not a
    regression: an error of the pose then does not shrink the hand.
    """
    seen, weight = keypoints_2d[..., :2], keypoints_2d[..., 2:].clamp_min(0)
    total = weight.sum(1, keepdim=True).clamp_min(1e-9)
    middle = (weight * joints_m[..., :2]).sum(1, keepdim=True) / total
    spread = (weight * (joints_m[..., :2] - middle).square()).sum((1, 2)).clamp_min(1e-12)
    half_scale = camera[:, 0] / 2
    for _ in range(4):  # the hand's own depth is a few percent of its distance: this converges at once
        flat = seen * (1 + half_scale[:, None, None] * joints_m[..., 2:] / FOCAL)  # as if all joints had depth zero
        place = (weight * flat).sum(1, keepdim=True) / total
        half_scale = ((weight * (flat - place).square()).sum((1, 2)) / spread).sqrt()
    shift = place[:, 0] / half_scale.clamp_min(1e-9)[:, None] - middle[:, 0]
    fitted = torch.cat([2 * half_scale[:, None], shift], dim=1)
    usable = ((weight[..., 0] > 0).sum(1) >= MIN_SEEN) & (half_scale > 0)
    return torch.where(usable[:, None], fitted, camera)


def crop_camera_to_full(
    camera: Tensor, crop_from_image: Tensor, crop_px: int, focal_px: Tensor, principal_px: Tensor
) -> Tensor:
    """Translation (B, 3), metres, that places the hand before the camera of the whole picture.

    camera (B, 3) crop camera; crop_from_image (B, 2, 3) upright affine from picture to crop pixels; focal_px (B,) and
    principal_px (B, 2) of the picture (HaMeR takes its centre). The hand keeps its size and place in the picture
    (HaMeR `cam_crop_to_full`); a longer focal length puts it proportionally further away.
    """
    affine = crop_from_image.to(camera.dtype)
    box_side_px = crop_px / affine[:, :, :2].det().abs().sqrt()
    half_crop = torch.full_like(affine[:, :, 2], crop_px / 2)
    centre_px = torch.linalg.solve(affine[:, :, :2], half_crop - affine[:, :, 2])
    scale, tx, ty = camera.unbind(-1)
    pixels_per_metre_doubled = box_side_px * scale + 1e-9
    shift = 2 * (centre_px - principal_px.to(camera.dtype)) / pixels_per_metre_doubled[:, None]
    depth = 2 * focal_px.to(camera.dtype) / pixels_per_metre_doubled
    return torch.stack([tx + shift[:, 0], ty + shift[:, 1], depth], dim=-1)
