"""The context-guided masked transformer (paper section 3.2): which codes does this image's hand consist of?

`encode` does everything that depends on the image alone, once: encoder, pyramid, shape and camera, 2D pose
tokens and the values of the deformable attention. `logits` does the rest, once per sampling iteration.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.deformable import DeformableCrossAttention
from maskhand.models.gapr import GaprBlock, first_neighbors
from maskhand.models.network import Context, HandNetwork, TransformerOutput, seen_keypoints
from maskhand.models.pose_graph import PoseGraph
from maskhand.models.pyramid import FeaturePyramid
from maskhand.models.shape_camera_head import ShapeCameraHead
from maskhand.models.synthesizer import ReferencePoints, SynthesizerLayer
from maskhand.models.vq_mano import VQMano


class MaskedTransformer(HandNetwork):
    """See the head of this file; `model.decoder: masked`, `model.condition: image`."""

    reference: ReferencePoints | None

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        super().__init__(cfg, tokenizer, mano, image_size_px)
        dim = cfg.dim
        self._make_sight(cfg)
        self.shape_camera = ShapeCameraHead(self.encoder.channels, cfg.head_dim, cfg.head_depth, cfg.heads, cfg.dropout)
        self.pose_graph = PoseGraph(cfg.pose2d_tokens, cfg.pose2d_width, dim) if cfg.pose2d_tokens else None

        self.embed = TokenEmbedding(tokenizer, dim, from_codebook=cfg.token_embed == "codebook")
        neighbors = first_neighbors(cfg.pose2d_tokens, tokenizer.influence)
        self.gapr = nn.ModuleList(
            GaprBlock(neighbors, dim, cfg.heads, cfg.gapr_se_ratio, cfg.gapr_residual, cfg.dropout)
            for _ in range(cfg.gapr_blocks)
        )
        self.synthesizer = nn.ModuleList(
            SynthesizerLayer(dim, cfg.heads, self._make_cross_attention(cfg), cfg.synth_ffn, cfg.dropout)
            for _ in range(cfg.synth_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.to_logits = CodeClassifier(dim, tokenizer, near_codes=cfg.logits_head == "codebook")

    def _make_sight(self, cfg: ModelConfig) -> None:
        """Between the encoder and the cross-attention."""
        self.pyramid = FeaturePyramid(self.encoder.map_channels, cfg.dim, cfg.feature_scales, cfg.pyramid_depthwise)
        influence = self.tokenizer.influence
        self.reference = ReferencePoints(
            cfg.ref_points, cfg.pose2d_tokens, influence, cfg.dim, cfg.synth_layers, self.encoder.aspect
        )

    def _make_cross_attention(self, cfg: ModelConfig) -> nn.Module:
        return DeformableCrossAttention(cfg.dim, cfg.heads, len(cfg.feature_scales), cfg.synth_points)

    def forward(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        ids: Tensor,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> TransformerOutput:
        """One training pass; arguments as in `encode` and `logits`."""
        context = self.encode(condition, keypoints_2d, drop_image=drop_image, drop_pose=drop_pose)
        return TransformerOutput(self.logits(ids, context), context.betas, context.placement)

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        image_maps = self.image_maps(condition, drop_image)
        maps = self.pyramid(image_maps)
        betas, placement = self.shape_camera(image_maps[0])
        values = tuple(cast(SynthesizerLayer, layer).cross.project(maps) for layer in self.synthesizer)
        seen, pose_tokens = self._pose_tokens(keypoints_2d, drop_pose)
        return Context(values, pose_tokens, seen, betas, placement)

    def _pose_tokens(self, keypoints_2d: Tensor, drop_pose: Tensor | None) -> tuple[Tensor, Tensor]:
        """The 2D pose (B, 21, 3) as the network is to see it, and its tokens (B, P, dim)."""
        seen = seen_keypoints(keypoints_2d, drop_pose)
        if self.pose_graph is None:
            return seen, seen.new_zeros(len(seen), 0, self.norm.normalized_shape[0])
        return seen, self.pose_graph(seen)

    def logits(self, ids: Tensor, context: Context) -> Tensor:
        """ids (B * H, L) int64 with `mask_id` for [MASK], the H strings of an image together -> (B * H, L, V)."""
        images = len(context.pose_tokens)
        pose_tokens = context.pose_tokens.repeat_interleave(len(ids) // images, dim=0)
        x = torch.cat([pose_tokens, self.embed(ids, self.tokenizer.codebook)], dim=1)
        for block in self.gapr:
            x = block(x)
        reference = None if self.reference is None else self.reference(x, context.keypoints_2d)
        for number, (layer, values) in enumerate(zip(self.synthesizer, context.values, strict=True)):
            x = layer(x, reference, values)
            if self.reference is not None and reference is not None:
                reference = self.reference.after_layer(number, x, reference)
        return self.to_logits(self.norm(x[:, pose_tokens.shape[1] :]), self.tokenizer.codebook)


class TokenEmbedding(nn.Module):
    """Ids (B, L) with [MASK] = V -> (B, L, dim), positions included.

    From the codebook: a linear map of the code vectors ties the embedding to the geometry the codes stand for.
    """

    def __init__(self, tokenizer: VQMano, dim: int, from_codebook: bool) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.codes: nn.Module = (
            nn.Sequential(nn.Linear(code_dim, dim), nn.LayerNorm(dim)) if from_codebook else nn.Embedding(size, dim)
        )
        self.mask = nn.Parameter(torch.randn(1, dim))
        # As large as the content: an all-[MASK] string is told apart by its positions alone.
        self.position = nn.Parameter(torch.randn(tokenizer.num_tokens, dim))

    def forward(self, ids: Tensor, codebook: Tensor) -> Tensor:
        masked = ids == len(codebook)
        ids = ids.masked_fill(masked, 0)
        if isinstance(self.codes, nn.Embedding):
            codes = self.codes(ids)
        elif ids.numel() < len(codebook):
            codes = self.codes(codebook[ids])
        else:  # every code once, rather than every token
            codes = self.codes(codebook)[ids]
        return torch.where(masked[..., None], self.mask, codes) + self.position


class CodeClassifier(nn.Module):
    """Features (B, L, dim) -> logits (B, L, V): one weight vector per code, or the nearness of codes.

    Nearness: the features name a point in code space and how sure they are of it, and a code's logit falls with its
    squared distance from the point (plus a bias per code). Neighboring codes then share what is learned about either,
    and the expected code vector follows the point from the first step on; with separate weights each code must be met
    often before it means anything. How sure differs by token: codes of orientations lie far apart, those of fingers
    close together.
    """

    def __init__(self, dim: int, tokenizer: VQMano, near_codes: bool) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.near_codes = near_codes
        self.linear = nn.Linear(dim, code_dim + 1 if near_codes else size)
        if near_codes:
            self.bias = nn.Parameter(torch.zeros(size))
            nn.init.constant_(self.linear.bias[-1:], -0.5 * math.log(code_dim))

    def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
        if not self.near_codes:
            return self.linear(x)
        codes = (codebook - codebook.mean(0)) / codebook.std(0).clamp_min(1e-6)
        with torch.autocast(x.device.type, enabled=False):  # the sharpness would multiply what bf16 rounds off
            point, log_sharpness = self.linear(x.float()).split([codes.shape[1], 1], dim=-1)
            # -|x - c|^2 / 2 without |x|^2, which the softmax does not see
            nearness = point @ codes.T - 0.5 * codes.square().sum(1)
            return log_sharpness.clamp(max=5.0).exp() * nearness + self.bias
