"""Which of several hands drawn for one image is the likeliest to be right: the one that is most like all of them.

The probabilities of a string's tokens when they were fixed depend on the order of fixing, and one more pass over the
finished string knows little more; docs/method.md has what was measured. Draws that agree need no probability.
"""

from __future__ import annotations

import torch
from torch import Tensor


def consensus(rotmats: Tensor, joints_m: Tensor) -> Tensor:
    """(B, H) minus the distance of each hand from the middle of the H drawn for its image; 0 where H is 1.

    rotmats (B, H, 16, 3, 3), joints_m (B, H, 21, 3). The distance is the mean over the joints after a similarity
    alignment, in millimeters, as in PA-MPJPE; the middle is `mean_hand`.
    """
    if joints_m.shape[1] == 1:
        return joints_m.new_zeros(joints_m.shape[:2])
    middle = mean_hand(rotmats, joints_m)[:, None].expand_as(joints_m)
    middle = middle - middle.mean(2, keepdim=True)
    return -1e3 * (_aligned(joints_m - joints_m.mean(2, keepdim=True), middle) - middle).norm(dim=-1).mean(2)


def mean_hand(rotmats: Tensor, joints_m: Tensor) -> Tensor:
    """(B, 21, 3) mean of the joints (B, H, 21, 3) in the hands' own frames: wrists together and turned alike."""
    return ((joints_m - joints_m[:, :, :1]) @ rotmats[:, :, 0]).mean(1)


def _aligned(points: Tensor, onto: Tensor) -> Tensor:
    """Centered points (..., P, 3) turned and scaled as near as possible to others; not mirrored (Umeyama 1991)."""
    u, singular, vt = torch.linalg.svd(points.mT @ onto)
    mirrored = torch.det(u @ vt).sign()
    last = torch.stack([torch.ones_like(mirrored), torch.ones_like(mirrored), mirrored], dim=-1)
    scale = (singular * last).sum(-1) / points.square().sum((-1, -2))
    return scale[..., None, None] * (points @ (u * last[..., None, :] @ vt))
