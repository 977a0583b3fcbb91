"""Context-infused masked synthesizer: tokens attend to each other and to the image (paper section 3.2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maskhand.conventions import openpose_joint_of_mano_joint
from maskhand.models.attention import Attention, feed_forward
from maskhand.models.deformable import crop_to_map
from maskhand.models.influence import own_joint


class SynthesizerLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each on normalized input, added to the stream.

    cross: `DeformableCrossAttention` or `TextCrossAttention`; what it reads is projected beforehand.
    """

    def __init__(self, dim: int, heads: int, cross: nn.Module, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.own = Attention(dim, heads, dropout)
        self.cross: Any = cross
        self.ffn = feed_forward(dim, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, reference: Tensor | None, values: Sequence[Tensor]) -> Tensor:
        own, cross, ffn = self.norms
        normed = own(x)
        x = x + self.dropout(self.own(normed, normed))
        x = x + self.dropout(self.cross(cross(x), reference, values))
        return x + self.dropout(self.ffn(ffn(x)))


class ReferencePoints(nn.Module):
    """Where each token looks first, (rows or 1, K, 2) in 0..1 over the feature map.

    learned: a constant per token, the same for every image (what the authors' figure 17 shows; one-stage Deformable
    DETR), beginning on an even grid over the central 80 %. query: a linear map of the token's content. pose2d: the
    detected place of the joint that the token moves most, or the learned constant where that joint was not seen.
    iterative: the learned
    constant in the first layer, moved after each by a linear map of the token's content (Deformable DETR's refinement;
    the gradient passes, as no loss sees the points themselves). Tokens of the 2D pose begin in the center, or at their
    joint.
    """

    joints: Tensor
    """(K,) int64 the OpenPose joint of each token; -1 for the one that speaks for all. Kept with the weights, which
    were trained to look there."""

    def __init__(
        self,
        kind: Literal["learned", "query", "pose2d", "iterative"],
        pose_tokens: int,
        influence: Tensor,
        dim: int,
        layers: int,
        aspect: float,
    ) -> None:
        """influence (L, 16): of each pose token on MANO's joints; aspect: width over height of the images."""
        super().__init__()
        self.kind, self.aspect = kind, aspect
        grid = torch.cat([torch.full((pose_tokens, 2), 0.5), _even_grid(len(influence))])
        self.logits = nn.Parameter(torch.logit(grid))
        keypoint_joint = torch.arange(pose_tokens) if pose_tokens > 1 else torch.full((pose_tokens,), -1)
        token_joint = torch.tensor(openpose_joint_of_mano_joint())[own_joint(influence)]
        self.register_buffer("joints", torch.cat([keypoint_joint, token_joint]))
        if kind == "query":
            self.from_query = _no_move(dim)
        if kind == "iterative":
            self.moves = nn.ModuleList(_no_move(dim) for _ in range(layers - 1))

    def forward(self, queries: Tensor, keypoints: Tensor) -> Tensor:
        """queries (B * H, K, dim); keypoints (B, 21, 3) as in HandBatch."""
        if self.kind == "query":
            return torch.sigmoid(self.logits + self.from_query(queries))
        learned = torch.sigmoid(self.logits)[None]
        if self.kind in ("learned", "iterative"):
            return learned
        own = keypoints[:, self.joints.clamp_min(0)]
        known = (own[..., 2:] > 0) & (self.joints >= 0)[:, None]
        reference = torch.where(known, crop_to_map(own[..., :2], self.aspect), learned)
        return reference.repeat_interleave(len(queries) // len(keypoints), dim=0)

    def after_layer(self, number: int, x: Tensor, reference: Tensor) -> Tensor:
        """Where the tokens look in layer `number` + 1, given the stream x (B * H, K, dim) behind layer `number`."""
        if self.kind != "iterative" or number == len(self.moves):
            return reference
        return torch.sigmoid(torch.logit(reference, eps=1e-5) + self.moves[number](x))


def _no_move(dim: int) -> nn.Linear:
    """A linear map to the plane that begins with zero."""
    layer = nn.Linear(dim, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _even_grid(count: int) -> Tensor:
    """(count, 2) points, row by row, on the smallest square grid that holds them, over the central 80 %."""
    side = math.ceil(math.sqrt(count))
    index = torch.arange(count)
    cells = torch.stack([index % side, index // side], dim=-1)
    return 0.1 + 0.8 * (cells + 0.5) / side
