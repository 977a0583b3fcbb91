"""The head that regresses shape and camera from the encoder's map, once per image (section 3.2.1, x-attention head).

Two learned queries, one for shape and one for camera, attend to the encoder's tokens in a small pre-norm decoder and
regress the difference from the mean hand in the middle of the crop (HaMeR's `mano_head.py`, one step).

The pose is not known yet, and MANO's origin is near the wrist: at the same image position, HaMeR's tx, ty differ by a
hand's length between a hand that points up and one that points down. So the head regresses the *center of the joints*
in the crop (close to the crop's center), and `place_camera` converts it to HaMeR's camera once the joints are known.

With `model.camera: residual` the queries attend to the 2D pose tokens as well, and the head regresses the difference
from the placement of the seen joints: their center, and the scale at which a mean hand facing the camera has the same
spread. The residual then accounts for foreshortening and for errors of the joints.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.conventions import NUM_BETAS
from maskhand.hand.camera import MIN_SEEN
from maskhand.models.attention import DecoderLayer

MEAN_SCALE: Final = 12.0
"""Crop half-sides per meter at which a mean hand (joints over about 14 cm) fills a crop of 1.2 times its box."""
MEAN_SPREAD_M: Final = 0.058
"""Root mean square distance of the flat mean hand's joints from their center."""


class ShapeCameraHead(nn.Module):
    """Feature map (B, C, h, w) -> betas (B, 10) and placement (B, 3): HaMeR's scale s, and x, y of the center of the
    joints in crop coordinates."""

    def __init__(
        self, channels: int, dim: int, depth: int, heads: int, dropout: float, pose_channels: int | None = None
    ) -> None:
        """pose_channels: of the 2D pose tokens, for a head that regresses the residual; None: it ignores them."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, dim) * 0.02)
        self.norm_source = nn.LayerNorm(channels)
        self.pose_proj = None if pose_channels is None else nn.Linear(pose_channels, channels)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, channels, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.to_betas = nn.Linear(dim, NUM_BETAS)
        self.to_camera = nn.Linear(dim, 3)
        for readout in (self.to_betas, self.to_camera):  # initialized to the mean hand (HaMeR: gain 0.01)
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
            nn.init.zeros_(readout.bias)

    def forward(self, coarsest: Tensor, pose_tokens: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """pose_tokens (B, P, pose_channels); seen (B, 21, 3) joints in crop coordinates and confidence. Both are used
        for the residual only."""
        source = self.norm_source(coarsest.flatten(2).transpose(1, 2))
        if self.pose_proj is not None:
            source = torch.cat([source, self.pose_proj(pose_tokens)], dim=1)
        x = self.queries.expand(len(coarsest), -1, -1)
        for layer in self.layers:
            x = layer(x, source)
        shape, camera = self.norm(x).unbind(1)
        base = None if self.pose_proj is None else placement_of_joints(seen)
        return self.to_betas(shape), placement_from(self.to_camera(camera), base)


def make_shape_camera_head(cfg: ModelConfig, channels: int) -> ShapeCameraHead:
    """The head of the recipe; channels: of the encoder's coarsest map."""
    pose_channels = cfg.dim if cfg.camera == "residual" else None
    return ShapeCameraHead(channels, cfg.head_dim, cfg.head_depth, cfg.heads, cfg.dropout, pose_channels)


def placement_from(delta: Tensor, base: Tensor | None = None) -> Tensor:
    """Output of a linear layer (B, 3) -> placement (B, 3); zeros give `base` (B, 3), or a mean hand in the middle of
    the crop."""
    # an exponential keeps the scale, and so the depth, positive
    if base is None:
        return torch.cat([MEAN_SCALE * delta[:, :1].exp(), delta[:, 1:]], dim=1)
    return torch.cat([base[:, :1] * delta[:, :1].exp(), base[:, 1:] + delta[:, 1:]], dim=1)


def seen_joints(keypoints_2d: Tensor, image_joints: Tensor | None) -> Tensor:
    """(B, 21, 3) x, y and confidence: the 2D pose; for a hand without one, the joints predicted by the encoder."""
    keypoints_2d = keypoints_2d[..., :3]
    if image_joints is None:
        return keypoints_2d
    found = torch.cat([image_joints[..., :2], torch.ones_like(image_joints[..., :1])], dim=-1)
    return torch.where(keypoints_2d[..., 2:].any(1, keepdim=True), keypoints_2d, found)


def placement_of_joints(seen: Tensor) -> Tensor:
    """(B, 3) placement of a flat hand facing the camera with the spread of the seen joints (B, 21, 3); the mean
    placement if fewer than `MIN_SEEN` are seen. No gradient is passed."""
    points, weight = seen[..., :2].detach(), (seen[..., 2:] > 0).to(seen.dtype)
    count = weight.sum(1)
    center = (weight * points).sum(1) / count.clamp_min(1)
    spread = ((weight * (points - center[:, None]).square()).sum((1, 2)) / count[:, 0].clamp_min(1)).sqrt()
    scale = (2 * spread / MEAN_SPREAD_M).clamp(MEAN_SCALE / 4, MEAN_SCALE * 4)
    mean = points.new_zeros(len(points), 3)
    mean[:, 0] = MEAN_SCALE
    return torch.where(count >= MIN_SEEN, torch.cat([scale[:, None], center], dim=1), mean)


def place_camera(placement: Tensor, joints_m: Tensor) -> Tensor:
    """The crop camera (B, 3) of `hand.camera` (s, tx, ty) that puts the center of joints (B, 21, 3) at `placement`.

    Exact for joints at equal depth; the extent in depth (a few cm at about 3 m) moves the center by about a percent.
    """
    scale, center = placement[:, :1], placement[:, 1:]
    meters_per_crop = 2 / scale
    return torch.cat([scale, center * meters_per_crop - joints_m.mean(dim=1)[:, :2]], dim=1)
