"""Multi-scale deformable cross-attention in plain PyTorch (paper section 3.2.2; Deformable DETR's `ms_deform_attn`).

    out(q) = W_out  concat_heads  sum over levels l and points k of  A[l, k] * (W x_l)(p + offset[l, k])

The values W x_l depend on the image only: `project` computes them once, `forward` samples them in every iteration.
Several token sequences (hypotheses) may share one image's values without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def crop_to_map(points: Tensor, aspect: float) -> Tensor:
    """(..., 2) crop coordinates, -0.5..0.5 over the square crop -> 0..1 over the feature maps.

    The network reads only the central columns of the crop, `aspect` times its width, so x is divided by `aspect`.
    """
    return torch.stack([points[..., 0] * (1 / aspect), points[..., 1]], dim=-1) + 0.5


class ValueProjection(nn.Linear):
    """A linear layer whose bias may be replaced."""

    def forward(self, input: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(input, self.weight, self.bias if bias is None else bias)


class DeformableCrossAttention(nn.Module):
    """Multi-scale deformable attention of tokens to feature maps."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.value_proj = ValueProjection(dim, dim)
        self.level_embedding = nn.Parameter(torch.randn(levels, dim) * 0.02)
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.out_proj = nn.Linear(dim, dim)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """As in Deformable DETR: head h samples in direction 2 pi h / heads, point k at k + 1 cells; equal weights."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        ring = directions[:, None, None, :] * steps[None, None, :, None]
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.data.copy_(ring.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def project(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, dim, h, w) of all levels -> values (B * heads, dim / heads, h, w)."""
        return self(maps)  # through the module's call, so that ZeRO stage 3 gathers its weights

    def forward(
        self, inputs: Tensor | Sequence[Tensor], reference: Tensor | None = None, values: Sequence[Tensor] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """inputs: queries (B * H, K, dim), sample-major; reference (B * H or 1, K, 2) in 0..1 over the map, x first.

        Without values the inputs are maps: see `project`.
        """
        if isinstance(inputs, Tensor):
            assert reference is not None and values is not None
            return self._attend(inputs, reference, values)
        return tuple(self._values(inputs))

    def _values(self, maps: Sequence[Tensor]) -> Iterator[Tensor]:
        # W (x + e) = W x + W e: the level's embedding costs nothing per position
        biases = self.value_proj(self.level_embedding)
        for feature, bias in zip(maps, biases, strict=True):
            value = self.value_proj(feature.permute(0, 2, 3, 1), bias)
            heads = value.unflatten(-1, (self.heads, -1)).permute(0, 3, 4, 1, 2)
            yield heads.flatten(0, 1).contiguous()

    def _attend(self, queries: Tensor, reference: Tensor, values: Sequence[Tensor]) -> Tensor:
        images = values[0].shape[0] // self.heads
        rows, tokens, _ = queries.shape
        shape = (self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(queries).unflatten(-1, (*shape, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.heads, -1)).softmax(-1).unflatten(-1, shape[1:])
        # Filled on the device: a copy from the host would synchronize in every layer of every iteration.
        sizes = torch.stack([offsets.new_full((), n) for v in values for n in (v.shape[3], v.shape[2])])
        locations = reference[:, :, None, None, None] + offsets / sizes.view(self.levels, 1, 2)
        # (rows, tokens, heads, levels, points, ...) -> (images * heads, hypotheses * tokens, levels, points, ...)
        locations = self._by_image(2 * locations - 1, images)
        weights = self._by_image(weights, images)
        sampled = [
            F.grid_sample(value, locations[:, :, level], mode="bilinear", padding_mode="zeros", align_corners=False)
            for level, value in enumerate(values)
        ]
        # each (images * heads, dim / heads, hypotheses * tokens, points)
        levels = [(s * weights[:, None, :, level]).sum(-1) for level, s in enumerate(sampled)]
        total = torch.stack(levels).sum(0)
        merged = total.unflatten(0, (images, self.heads)).permute(0, 3, 1, 2)
        return self.out_proj(merged.reshape(rows, tokens, -1))

    def _by_image(self, x: Tensor, images: int) -> Tensor:
        grouped = x.reshape(images, -1, *x.shape[2:])
        return grouped.transpose(1, 2).flatten(0, 1)
