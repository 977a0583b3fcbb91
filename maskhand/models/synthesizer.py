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
from maskhand.models.influence import most_influenced_joint


class SynthesizerLayer(nn.Module):
    """A pre-norm layer of self-attention, cross-attention and feed-forward.

    cross_attn: `DeformableCrossAttention` or `TextCrossAttention`; its values are projected beforehand.
    """

    def __init__(self, dim: int, heads: int, cross_attn: nn.Module, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.self_attn = Attention(dim, heads, dropout)
        self.cross_attn: Any = cross_attn
        self.ffn = feed_forward(dim, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, reference: Tensor | None, values: Sequence[Tensor], rows: int) -> Tensor:
        """x (R, K, dim), of which the first `rows` attend to an image or text; reference (rows or 1, K, 2)."""
        self_norm, cross_norm, ffn_norm = self.norms
        normed = self_norm(x)
        x = x + self.dropout(self.self_attn(normed, normed))
        seen = x[:rows] + self.dropout(self.cross_attn(cross_norm(x[:rows]), reference, values))
        x = seen if rows == len(x) else torch.cat([seen, x[rows:]])
        return x + self.dropout(self.ffn(ffn_norm(x)))


class ReferencePoints(nn.Module):
    """Reference points of deformable attention, one per token: (rows or 1, K, 2) in 0..1 over the feature map.

    learned: a constant per token, the same for every image (the authors' figure 17; one-stage Deformable DETR),
    initialized on an even grid over the central 80 %. query: a linear map of the token's features. pose2d: the detected
    position of the joint that the token influences most; if it was not detected, its position predicted by the encoder
    (`model.image_joints`), or the learned constant.
    iterative: the learned constant in the first layer, refined after each layer by a linear map of the token's features
    (Deformable DETR; the gradient is passed, as no loss supervises the points). projected: as pose2d in the first pass,
    then that joint of the previous pass's expected hand, projected into the crop. Tokens of the 2D pose start in the
    center, or at their joint; with projected they stay at a joint that was detected.
    """

    joints: Tensor
    """(K,) int64 OpenPose joint of each token; -1 for a token of the whole 2D pose. Part of the state dict, as the
    weights were trained with it."""

    def __init__(
        self,
        kind: Literal["learned", "query", "pose2d", "iterative", "projected"],
        pose_tokens: int,
        influence: Tensor,
        dim: int,
        layers: int,
        aspect: float,
    ) -> None:
        """influence (L, 16): of each pose token on MANO's joints; aspect: width over height of the images."""
        super().__init__()
        self.kind, self.pose_tokens, self.aspect = kind, pose_tokens, aspect
        grid = torch.cat([torch.full((pose_tokens, 2), 0.5), _even_grid(len(influence))])
        self.logits = nn.Parameter(torch.logit(grid))
        keypoint_joint = torch.arange(pose_tokens) if pose_tokens > 1 else torch.full((pose_tokens,), -1)
        token_joint = torch.tensor(openpose_joint_of_mano_joint())[most_influenced_joint(influence)]
        self.register_buffer("joints", torch.cat([keypoint_joint, token_joint]))
        if kind == "query":
            self.from_query = _zero_offset(dim)
        if kind == "iterative":
            self.refinements = nn.ModuleList(_zero_offset(dim) for _ in range(layers - 1))

    def forward(
        self,
        queries: Tensor,
        keypoints: Tensor,
        image_joints: Tensor | None = None,
        projected: Tensor | None = None,
    ) -> Tensor:
        """queries (B * H, K, dim); keypoints (B, 21, 7) as in HandBatch; image_joints (B, 21, 5) as in Context.

        projected (B * H, 21, 2) crop coordinates: for kind `projected`, joints of the previous pass's expected hand;
        None in the first pass.
        """
        if self.kind == "query":
            return torch.sigmoid(self.logits + self.from_query(queries))
        learned = torch.sigmoid(self.logits)[None]
        if self.kind in ("learned", "iterative"):
            return learned
        joint, has_joint = self.joints.clamp_min(0), (self.joints >= 0)[:, None]
        if image_joints is not None:
            # Detached: where to sample is learned by the sampling offsets.
            seen = crop_to_map(image_joints.detach()[:, joint, :2], self.aspect)
            learned = torch.where(has_joint, seen, learned)
        of_token = keypoints[:, joint]
        detected = (of_token[..., 2:3] > 0) & has_joint
        reference = torch.where(detected, crop_to_map(of_token[..., :2], self.aspect), learned)
        hypotheses = len(queries) // len(keypoints)
        reference = reference.repeat_interleave(hypotheses, dim=0)
        if projected is None:
            return reference
        is_pose_token = torch.arange(len(self.joints), device=self.joints.device) < self.pose_tokens
        stays = (detected & is_pose_token[:, None]).repeat_interleave(hypotheses, dim=0) | ~has_joint
        return torch.where(stays, reference, crop_to_map(projected[:, joint], self.aspect))

    def after_layer(self, number: int, x: Tensor, reference: Tensor) -> Tensor:
        """The points of layer `number` + 1, given the features x (B * H, K, dim) after layer `number`."""
        if self.kind != "iterative" or number == len(self.refinements):
            return reference
        return torch.sigmoid(torch.logit(reference, eps=1e-5) + self.refinements[number](x))


def _zero_offset(dim: int) -> nn.Linear:
    """A linear map from features to 2D offsets, initialized to zero."""
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
