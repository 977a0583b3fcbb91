"""The head that regresses shape and camera from the encoder's map, once per image (section 3.2.1, x-attention head).

Two learned queries, one for shape and one for camera, attend to the encoder's tokens in a small pre-norm decoder and
regress the difference from the mean hand in the middle of the crop (HaMeR's `mano_head.py`, one step).

The pose is not known yet, and MANO's origin is near the wrist: at the same image position, HaMeR's tx, ty differ by a
hand's length between a hand that points up and one that points down. So the head regresses the *center of the joints*
in the crop (close to the crop's center), and `place_camera` converts it to HaMeR's camera once the joints are known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.conventions import NUM_BETAS
from maskhand.models.attention import DecoderLayer

MEAN_SCALE = 12.0
"""Crop half-sides per meter at which a mean hand (joints over about 14 cm) fills a crop of 1.2 times its box."""


class ShapeCameraHead(nn.Module):
    """Feature map (B, C, h, w) -> betas (B, 10) and placement (B, 3): HaMeR's scale s, and x, y of the center of the
    joints in crop coordinates."""

    def __init__(self, channels: int, dim: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, dim) * 0.02)
        self.norm_source = nn.LayerNorm(channels)
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, channels, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.to_betas = nn.Linear(dim, NUM_BETAS)
        self.to_camera = nn.Linear(dim, 3)
        for readout in (self.to_betas, self.to_camera):  # initialized to the mean hand (HaMeR: gain 0.01)
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
            nn.init.zeros_(readout.bias)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        source = self.norm_source(tokens.flatten(2).transpose(1, 2))
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, source)
        shape, camera = self.norm(x).unbind(1)
        return self.to_betas(shape), placement_from(self.to_camera(camera))


def placement_from(delta: Tensor) -> Tensor:
    """Output of a linear layer (B, 3), zeros for a mean hand in the middle of the crop, -> placement (B, 3)."""
    # an exponential keeps the scale, and so the depth, positive
    return torch.cat([MEAN_SCALE * delta[:, :1].exp(), delta[:, 1:]], dim=1)


def place_camera(placement: Tensor, joints_m: Tensor) -> Tensor:
    """The crop camera (B, 3) of `hand.camera` (s, tx, ty) that puts the center of joints (B, 21, 3) at its placement.

    Exact for joints at one depth; the extent in depth (a few cm of some 3 m) moves the center by about a percent.
    """
    scale, center = placement[:, :1], placement[:, 1:]
    meters_per_crop = 2 / scale
    return torch.cat([scale, center * meters_per_crop - joints_m.mean(dim=1)[:, :2]], dim=1)
