"""ViTDet's simple feature pyramid: maps of several resolutions from the encoder's single map (paper section 3.2.1).

A scale of 4 is four times the encoder's resolution along each axis (64 x 48 from 16 x 12), as in detectron2's
`modeling/backbone/vit.py`, extended to 8 and 16 by the same doubling. Transposed convolutions halve the channels at
each doubling (not below 32), followed by 1x1 and 3x3 convolutions with layer norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (1, 2, 4, 8, 16)
MIN_CHANNELS = 32


class MapNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """Feature maps of an encoder, the coarsest (B, C, h, w) first -> one map (B, dim, s*h, s*w) per scale s.

    A scale is computed from the encoder's own map of that scale if there is one, else from the coarsest map.
    """

    def __init__(self, channels: Mapping[int, int], dim: int, scales: tuple[int, ...], depthwise: bool) -> None:
        """channels: resolution relative to the coarsest map -> channels, in the order of the maps."""
        super().__init__()
        unknown = [s for s in scales if s not in SCALES]
        if unknown or not scales:
            raise ValueError(f"model.feature_scales is {list(scales)}; choose at least one of {list(SCALES)}")
        self.sources = [list(channels).index(scale) if scale in channels else 0 for scale in scales]
        self.branches = nn.ModuleList(
            _branch(channels[scale], dim, 1, depthwise)
            if scale in channels
            else _branch(channels[1], dim, scale, depthwise)
            for scale in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [branch(maps[source]) for branch, source in zip(self.branches, self.sources, strict=True)]


def _branch(channels: int, dim: int, scale: int, depthwise: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    doublings = scale.bit_length() - 1
    for k in range(doublings):
        out = max(channels // 2, min(channels, MIN_CHANNELS))
        layers.append(nn.ConvTranspose2d(channels, out, 2, stride=2))
        if k + 1 < doublings:
            layers += [MapNorm(out), nn.GELU()]
        channels = out
    # A full 3x3 convolution at 16x would cost more than the rest of the pyramid (29 GMAC at 256 channels).
    groups = dim if depthwise or scale == 16 else 1
    layers += [
        nn.Conv2d(channels, dim, 1, bias=False),
        MapNorm(dim),
        nn.Conv2d(dim, dim, 3, padding=1, groups=groups, bias=False),
        MapNorm(dim),
    ]
    return nn.Sequential(*layers)
