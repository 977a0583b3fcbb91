"""Shape and camera from the encoder's low-resolution map, once per image (paper section 3.2.1, x-attention head).

Two learned queries, one for the shape and one for the camera, look at the raw tokens through a small pre-norm decoder
and say by how much the hand differs from the mean hand in the middle of the crop (HaMeR's `mano_head.py`, one step).

The head does not know the pose yet, and MANO's origin is near the wrist: with the same image place, HaMeR's tx, ty
differ by a hand's length between a hand that points up and one that points down. So the head says where the *middle of
the joints* is in the crop (nearly its center, as crops are cut around hands), and `place_camera` turns this into
HaMeR's camera once the joints are known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.conventions import NUM_BETAS
from maskhand.models.attention import DecoderLayer

MEAN_SCALE = 12.0
"""Crop half-sides per meter at which a mean hand (joints over about 14 cm) fills a crop of 1.2 times its box."""


class ShapeCameraHead(nn.Module):
    """Tokens (B, C, h, w) -> betas (B, 10) and placement (B, 3): HaMeR's scale s, and x, y of the hand's middle in
    crop coordinates."""

    def __init__(self, channels: int, dim: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, dim) * 0.02)
        self.norm_source = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, channels, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.to_betas = nn.Linear(dim, NUM_BETAS)
        self.to_camera = nn.Linear(dim, 3)
        for readout in (self.to_betas, self.to_camera):  # begin at the mean hand (HaMeR: gain 0.01)
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
            nn.init.zeros_(readout.bias)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        source = self.norm_source(tokens.flatten(2).transpose(1, 2))
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, source)
        shape, camera = self.norm(x).unbind(1)
        return self.to_betas(shape), placement_of(self.to_camera(camera))


def placement_of(delta: Tensor) -> Tensor:
    """What a readout says (B, 3), zeros for a mean hand in the middle of the crop, -> placement (B, 3)."""
    # an exponential keeps the scale, and so the depth, positive
    return torch.cat([MEAN_SCALE * delta[:, :1].exp(), delta[:, 1:]], dim=1)


def place_camera(placement: Tensor, joints_m: Tensor) -> Tensor:
    """The crop camera (B, 3) of `hand.camera` (s, tx, ty) that puts the middle of joints (B, 21, 3) at its placement.

    Exact for joints at one depth; the hand's own depth (a few cm of some 3 m) moves the middle by about a percent.
    """
    scale, place = placement[:, :1], placement[:, 1:]
    meters_per_crop = 2 / scale
    return torch.cat([scale, place * meters_per_crop - joints_m.mean(dim=1)[:, :2]], dim=1)
