"""The consensus score, which ranks the hypotheses of one image by their distance to the mean of all.

Token probabilities rank worse: they depend on the order in which tokens were fixed, and an additional pass over the
finished sequence helps little (measurements in docs/claims.md).
"""

from __future__ import annotations

import torch
from torch import Tensor


def consensus(rotmats: Tensor, joints_m: Tensor) -> Tensor:
    """(B, H) scores: negative PA-MPJPE (millimeters) of each hypothesis to the mean hand of its image; 0 if H is 1.

    rotmats (B, H, 16, 3, 3), joints_m (B, H, 21, 3). The mean is `mean_hand`.
    """
    if joints_m.shape[1] == 1:
        return joints_m.new_zeros(joints_m.shape[:2])
    mean = mean_hand(rotmats, joints_m)[:, None].expand_as(joints_m)
    mean = mean - mean.mean(2, keepdim=True)
    return -1e3 * (_similarity_align(joints_m - joints_m.mean(2, keepdim=True), mean) - mean).norm(dim=-1).mean(2)


def mean_hand(rotmats: Tensor, joints_m: Tensor) -> Tensor:
    """(B, 21, 3) mean of the joints (B, H, 21, 3) in the wrist frame: relative to the wrist and its orientation."""
    return ((joints_m - joints_m[:, :, :1]) @ rotmats[:, :, 0]).mean(1)


def _similarity_align(points: Tensor, target: Tensor) -> Tensor:
    """Rotate and scale centered points (..., P, 3) onto centered targets, without reflection (Umeyama 1991)."""
    u, singular, vt = torch.linalg.svd(points.mT @ target)
    mirrored = torch.det(u @ vt).sign()
    last = torch.stack([torch.ones_like(mirrored), torch.ones_like(mirrored), mirrored], dim=-1)
    scale = (singular * last).sum(-1) / points.square().sum((-1, -2))
    return scale[..., None, None] * (points @ (u * last[..., None, :] @ vt))
