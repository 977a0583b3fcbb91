"""HaMeR's crop camera (s, tx, ty), and the translation of a hand in front of the camera of the whole image.

Lengths in the crop are measured in crop sides, so focal lengths are too: HaMeR's 5000 px on a 256 px crop is
`FOCAL` = 5000 / 256 whatever the crop's resolution. Crop coordinates run over -0.5..0.5 (see `batch`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from maskhand.hand.assumed_camera import FOCAL

MIN_SEEN: Final = 6
"""Minimum number of seen joints that determine the position and scale of a hand."""

REWEIGHTINGS: Final = 3
"""After which the weights of the points do not change much any more."""


def crop_camera_translation(camera: Tensor, focal: float | Tensor = FOCAL) -> Tensor:
    """The translation of a hand in front of the crop camera.

    camera (B, 3): s, tx, ty; s is the weak-perspective scale (crop half-sides per meter). Returns (B, 3) meters:
    [tx, ty, 2 f / (s + 1e-9)] (HaMeR `hamer.py` with f / 256 = focal).
    """
    scale, tx, ty = camera.unbind(-1)
    return torch.stack([tx, ty, 2 * focal / (scale + 1e-9)], dim=-1)


def project_crop(points_m: Tensor, camera: Tensor, focal: float | Tensor = FOCAL) -> Tensor:
    """(B, N, 3) points before translation, meters, and (B, 3) crop camera -> (B, N, 2) crop coordinates."""
    translated = points_m + crop_camera_translation(camera, focal)[:, None]
    if isinstance(focal, Tensor):
        focal = focal[:, None, None]
    return focal * translated[..., :2] / translated[..., 2:]


def translation_on_points(
    joints_m: np.ndarray, points_px: np.ndarray, weight: np.ndarray, K_px: np.ndarray
) -> np.ndarray:
    """(B, 3) float64, meters: places hands in front of their cameras so that their joints meet points in the images.

    joints_m (B, J, 3) camera axes, before translation; points_px (B, J, 2) pixels; weight (B, J), not negative and in
    each row positive somewhere; K_px (B, 3, 3). Exact where the joints are right. Points that the hand then misses by
    more than its mean count less (Cauchy's weights): detectors mistake one finger for another.
    """
    weight = weight[..., None]
    seen = np.concatenate([points_px, np.ones_like(points_px[..., :1])], axis=2) @ np.linalg.inv(K_px).transpose(
        0, 2, 1
    )
    rotation = _view_rotation((weight * seen).sum(1) / weight.sum(1))
    seen, joints = seen @ rotation, joints_m @ rotation
    rays = seen[..., :2] / seen[..., 2:]
    translation = _in_view(joints, rays, weight)
    for _ in range(REWEIGHTINGS):
        moved = joints + translation
        missed = np.linalg.norm(moved[..., :2] / moved[..., 2:] - rays, axis=2, keepdims=True)
        mean = (weight * missed).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
        translation = _in_view(joints, rays, weight / (1 + (missed / np.maximum(mean, 1e-9)) ** 2))
    return (translation @ rotation.transpose(0, 2, 1))[:, 0]


def _in_view(joints_m: np.ndarray, rays: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(B, 1, 3) translations of joints (B, J, 3), in cameras pointed at them, onto rays (B, J, 2) = x / z, y / z.

    Where the joints are wrong, a least-squares fit of all three coordinates would put the hand too far away (a
    regression on erroneous joints is diluted). So the depth is the one at which the rays, followed to their joints'
    depths, spread as far across the line of sight as the joints do; the rest is least squares. weight (B, J, 1).
    """
    share = weight / weight.sum(1, keepdims=True)
    across, along = joints_m[..., :2], joints_m[..., 2:]

    def apart(values: np.ndarray) -> np.ndarray:
        return values - (share * values).sum(1, keepdims=True)

    # At depth d the rays are at rays * (along + d): their spread is a quadratic in d.
    a = np.maximum((share * apart(rays) ** 2).sum((1, 2)), 1e-12)
    b = (share * apart(rays) * apart(rays * along)).sum((1, 2))
    c = (share * (apart(rays * along) ** 2 - apart(across) ** 2)).sum((1, 2))
    depth = ((np.sqrt(np.maximum(b * b - a * c, 0)) - b) / a)[:, None, None]
    in_image = share / (along + depth) ** 2
    shift = (in_image * (rays * (along + depth) - across)).sum(1, keepdims=True) / in_image.sum(1, keepdims=True)
    return np.concatenate([shift, depth], axis=2)


def crop_camera_on_points(joints_m: np.ndarray, points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(B, 3) the crop camera s, tx, ty under which joints meet points (B, J, 2) in crop coordinates; the others as in
    `translation_on_points`."""
    K = np.tile(np.diag([FOCAL, FOCAL, 1.0]), (len(joints_m), 1, 1))
    tx, ty, depth = translation_on_points(joints_m, points, weight, K).T
    return np.stack([2 * FOCAL / depth, tx, ty], axis=1)


def _view_rotation(direction: np.ndarray) -> np.ndarray:
    """(B, 3) directions with positive z -> (B, 3, 3) rotations whose last column is the direction: v @ R is v in the
    axes of a camera pointed there."""
    forward = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    right = np.stack([forward[:, 2], np.zeros(len(forward)), -forward[:, 0]], axis=1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], axis=2)
