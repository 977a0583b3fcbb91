"""The context-guided masked transformer (paper section 3.2): it predicts the masked pose tokens of an image's hand.

`encode` computes what depends on the image and 2D pose alone, once: encoder, pyramid, shape and camera, 2D pose tokens
and the values of the deformable attention. `logits` computes the rest, once per decoding iteration.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.deformable import DeformableCrossAttention
from maskhand.models.gapr import GaprBlock, initial_neighbors
from maskhand.models.network import Context, HandNetwork, TransformerOutput, drop_keypoints
from maskhand.models.pose_graph import make_pose_graph
from maskhand.models.pyramid import FeaturePyramid
from maskhand.models.shape_camera_head import ShapeCameraHead
from maskhand.models.synthesizer import ReferencePoints, SynthesizerLayer
from maskhand.models.vq_mano import VQMano


class MaskedTransformer(HandNetwork):
    """The paper's network: `model.decoder: masked`, `model.condition: image`."""

    reference: ReferencePoints | None

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        super().__init__(cfg, tokenizer, mano, image_size_px)
        dim = cfg.dim
        self._build_visual_context(cfg)
        self.shape_camera = ShapeCameraHead(self.encoder.channels, cfg.head_dim, cfg.head_depth, cfg.heads, cfg.dropout)
        self.pose_graph = make_pose_graph(cfg, dim)

        self.token_embedding = TokenEmbedding(tokenizer, dim, from_codebook=cfg.token_embed == "codebook")
        neighbors = initial_neighbors(cfg.pose2d_tokens, tokenizer.influence)
        self.gapr = nn.ModuleList(
            GaprBlock(neighbors, dim, cfg.heads, cfg.gapr_se_ratio, cfg.gapr_residual, cfg.dropout)
            for _ in range(cfg.gapr_blocks)
        )
        self.synthesizer = nn.ModuleList(
            SynthesizerLayer(dim, cfg.heads, self._build_cross_attention(cfg), cfg.synth_ffn, cfg.dropout)
            for _ in range(cfg.synth_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.code_classifier = CodeClassifier(dim, tokenizer, by_distance=cfg.logits_head == "codebook")

    def _build_visual_context(self, cfg: ModelConfig) -> None:
        """Build the modules between the encoder and the cross-attention."""
        self.pyramid = FeaturePyramid(self.encoder.map_channels, cfg.dim, cfg.feature_scales, cfg.pyramid_depthwise)
        influence = self.tokenizer.influence
        self.reference = ReferencePoints(
            cfg.ref_points, cfg.pose2d_tokens, influence, cfg.dim, cfg.synth_layers, self.encoder.aspect
        )

    def _build_cross_attention(self, cfg: ModelConfig) -> nn.Module:
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
        values = tuple(cast(SynthesizerLayer, layer).cross_attn.project(maps) for layer in self.synthesizer)
        keypoints_2d, pose_tokens = self._pose_tokens(keypoints_2d, drop_pose)
        return Context(values, pose_tokens, keypoints_2d, betas, placement)

    def _pose_tokens(self, keypoints_2d: Tensor, drop_pose: Tensor | None) -> tuple[Tensor, Tensor]:
        """The 2D pose (B, 21, 7) after dropping, and its tokens (B, P, dim)."""
        keypoints_2d = drop_keypoints(keypoints_2d, drop_pose)
        if self.pose_graph is None:
            return keypoints_2d, keypoints_2d.new_zeros(len(keypoints_2d), 0, self.norm.normalized_shape[0])
        return keypoints_2d, self.pose_graph(keypoints_2d)

    def logits(self, ids: Tensor, context: Context) -> Tensor:
        """ids (B * H, L) int64, `mask_id` for [MASK], the H token sequences of an image together -> (B * H, L, V)."""
        images = len(context.pose_tokens)
        pose_tokens = context.pose_tokens.repeat_interleave(len(ids) // images, dim=0)
        x = torch.cat([pose_tokens, self.token_embedding(ids, self.tokenizer.codebook)], dim=1)
        for block in self.gapr:
            x = block(x)
        reference = None if self.reference is None else self.reference(x, context.keypoints_2d)
        for number, (layer, values) in enumerate(zip(self.synthesizer, context.values, strict=True)):
            x = layer(x, reference, values)
            if self.reference is not None and reference is not None:
                reference = self.reference.after_layer(number, x, reference)
        return self.code_classifier(self.norm(x[:, pose_tokens.shape[1] :]), self.tokenizer.codebook)


class TokenEmbedding(nn.Module):
    """Token and position embeddings: ids (B, L) with [MASK] = V -> (B, L, dim).

    From the codebook: a linear map of the code vectors ties the embedding to the geometry that the codes represent.
    """

    def __init__(self, tokenizer: VQMano, dim: int, from_codebook: bool) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.codes: nn.Module = (
            nn.Sequential(nn.Linear(code_dim, dim), nn.LayerNorm(dim)) if from_codebook else nn.Embedding(size, dim)
        )
        self.mask_token = nn.Parameter(torch.randn(1, dim))
        # As large as the content: tokens of an all-[MASK] sequence differ by their positions alone.
        self.position_embedding = nn.Parameter(torch.randn(tokenizer.num_tokens, dim))

    def forward(self, ids: Tensor, codebook: Tensor) -> Tensor:
        masked = ids == len(codebook)
        ids = ids.masked_fill(masked, 0)
        if isinstance(self.codes, nn.Embedding):
            codes = self.codes(ids)
        elif ids.numel() < len(codebook):
            codes = self.codes(codebook[ids])
        else:  # embed every code once, rather than every token
            codes = self.codes(codebook)[ids]
        return torch.where(masked[..., None], self.mask_token, codes) + self.position_embedding


class CodeClassifier(nn.Module):
    """The output head: features (B, L, dim) -> logits (B, L, V), linear or by distance.

    By distance: a linear layer predicts a point in code space and a sharpness, and a code's logit is minus its squared
    distance from the point times the sharpness (plus a bias per code). Neighboring codes then share what is learned
    about either, and the expected code vector follows the point from the first step on; separate weights need many
    samples of each code. The sharpness is per token: codes of orientations lie far apart, those of fingers close
    together.
    """

    def __init__(self, dim: int, tokenizer: VQMano, by_distance: bool) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.by_distance = by_distance
        self.linear = nn.Linear(dim, code_dim + 1 if by_distance else size)
        if by_distance:
            self.bias = nn.Parameter(torch.zeros(size))
            nn.init.constant_(self.linear.bias[-1:], -0.5 * math.log(code_dim))

    def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
        if not self.by_distance:
            return self.linear(x)
        codes = (codebook - codebook.mean(0)) / codebook.std(0).clamp_min(1e-6)
        with torch.autocast(x.device.type, enabled=False):  # the sharpness would amplify the rounding of bf16
            point, log_sharpness = self.linear(x.float()).split([codes.shape[1], 1], dim=-1)
            # -|x - c|^2 / 2 without |x|^2, which the softmax cancels
            proximity = point @ codes.T - 0.5 * codes.square().sum(1)
            return log_sharpness.clamp(max=5.0).exp() * proximity + self.bias
