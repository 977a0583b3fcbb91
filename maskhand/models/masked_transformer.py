"""The context-guided masked transformer (paper section 3.2): predicts the masked pose tokens of the hand in an image.

`encode` computes everything that depends only on the image and 2D pose, once: encoder, pyramid, shape and camera, 2D
pose tokens and the values of the deformable attention. `logits` computes the rest, once per decoding iteration. With
`model.ref_points: projected`, `project` projects an iteration's hand into the image; the next iteration attends there.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.hand.camera import project_crop
from maskhand.hand.layer import ManoLayer
from maskhand.models.code_classifier import make_code_classifier
from maskhand.models.deformable import DeformableCrossAttention
from maskhand.models.gapr import GaprBlock, initial_neighbors
from maskhand.models.network import Context, HandNetwork, TransformerOutput, with_missing
from maskhand.models.pose_graph import make_pose_graph
from maskhand.models.pyramid import FeaturePyramid
from maskhand.models.shape_camera_head import make_shape_camera_head, place_camera, seen_joints
from maskhand.models.synthesizer import ReferencePoints, SynthesizerLayer
from maskhand.models.token_queries import make_token_queries
from maskhand.models.vq_mano import VQMano, full_precision


class MaskedTransformer(HandNetwork):
    """The paper's network: `model.decoder: masked`, `model.condition: image`."""

    reference: ReferencePoints | None

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        super().__init__(cfg, tokenizer, mano, image_size_px)
        dim, self.heads = cfg.dim, cfg.heads
        self._build_visual_context(cfg)
        self.shape_camera = make_shape_camera_head(cfg, self.encoder.channels)
        self.pose_graph = make_pose_graph(cfg)

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
        self.queries = make_token_queries(cfg, tokenizer, self.encoder.channels) if cfg.sees_image else None
        self.norm = nn.LayerNorm(dim)
        self.code_classifier = make_code_classifier(cfg, tokenizer)

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
        *,
        self_condition: bool = False,
    ) -> TransformerOutput:
        """One training pass; arguments as in `encode` and `logits`.

        self_condition: run a first pass without gradient, and attend at the joints of its expected hand (as in
        self-conditioning: Chen et al. 2023, Analog Bits).
        """
        context = self.encode(condition, keypoints_2d, drop_image=drop_image, drop_pose=drop_pose)
        joints_2d = None
        if self_condition:  # only hands with an image attend to one
            joints_2d = self._first_pass(ids[: len(condition)], context.first(len(condition)))
        logits = self.logits(ids, context, joints_2d)
        return TransformerOutput(logits, context.betas, context.placement, image_joints=context.image_joints)

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        image_maps, rows = self.image_maps(condition, drop_image), len(keypoints_2d)
        maps = self.pyramid(image_maps)
        values = tuple(cast(SynthesizerLayer, layer).cross_attn.project(maps) for layer in self.synthesizer)
        image_joints = self.image_joints(image_maps[0])
        keypoints_2d = self.read_pose(keypoints_2d, image_joints, drop_image, drop_pose)
        image_joints = None if image_joints is None else with_missing(image_joints, rows)
        coarsest = with_missing(image_maps[0], rows)
        pose_tokens = self._pose_tokens(keypoints_2d, image_joints)
        betas, placement = self.shape_camera(coarsest, pose_tokens, seen_joints(keypoints_2d, image_joints))
        queries = None if self.queries is None else self.queries(keypoints_2d, coarsest, image_joints)
        return Context(values, pose_tokens, keypoints_2d, betas, placement, image_joints=image_joints, queries=queries)

    def _pose_tokens(self, keypoints_2d: Tensor, image_joints: Tensor | None = None) -> Tensor:
        """The tokens (B, P, dim) of the 2D pose."""
        if self.pose_graph is None:
            return keypoints_2d.new_zeros(len(keypoints_2d), 0, self.norm.normalized_shape[0])
        return self.pose_graph(keypoints_2d, image_joints)

    @property
    def self_conditioned(self) -> bool:
        return self.reference is not None and self.reference.kind == "projected"

    @torch.no_grad()
    def project(self, codes: Tensor, context: Context) -> Tensor:
        """(B * H, 21, 2) crop coordinates: projected joints of the hands decoded from code vectors (B * H, L, C).

        codes may be mixtures of code vectors. Shape and placement are from the context; the H hands of an image are
        consecutive rows.
        """
        hypotheses = len(codes) // len(context.betas)
        betas, placement = (x.float().repeat_interleave(hypotheses, dim=0) for x in (context.betas, context.placement))
        with full_precision(codes.device):
            joints_m = self.mano(self.tokenizer.decode_soft(codes), betas).joints_m
            return project_crop(joints_m, place_camera(placement, joints_m))

    @torch.no_grad()
    def _first_pass(self, ids: Tensor, context: Context) -> Tensor:
        """As `project`, for the codes of the visible tokens and the expected code vectors of the masked ones."""
        codebook = self.tokenizer.codebook
        masked = ids == self.mask_id
        probability = self.logits(ids, context).float().softmax(-1)
        torch.clear_autocast_cache()  # it holds weights cast without gradient, which the second pass would reuse
        with full_precision(ids.device):
            expected = probability @ codebook
        return self.project(torch.where(masked[..., None], expected, codebook[ids.masked_fill(masked, 0)]), context)

    def logits(self, ids: Tensor, context: Context, joints_2d: Tensor | None = None) -> Tensor:
        """ids (B * H, L) int64, `mask_id` for [MASK], the H token sequences of an image consecutive -> (B * H, L, V).

        joints_2d (I * H, 21, 2): for a `self_conditioned` network, the previous pass's joints by `project`, for hands
        with an image; None in a first pass.
        """
        hypotheses = len(ids) // len(context.pose_tokens)
        pose_tokens = context.pose_tokens.repeat_interleave(hypotheses, dim=0)
        tokens = self.token_embedding(ids, self.tokenizer.codebook)
        if context.queries is not None:
            tokens = tokens + context.queries.repeat_interleave(hypotheses, dim=0)
        x = torch.cat([pose_tokens, tokens], dim=1)
        for block in self.gapr:
            x = block(x)
        reference, rows = None, len(x)
        if self.reference is not None:
            images = len(context.values[0][0]) // self.heads
            rows, seen = hypotheses * images, context.first(images)
            reference = self.reference(x[:rows], seen.keypoints_2d, seen.image_joints, joints_2d)
        for number, (layer, values) in enumerate(zip(self.synthesizer, context.values, strict=True)):
            x = layer(x, reference, values, rows)
            if self.reference is not None and reference is not None:
                reference = self.reference.after_layer(number, x[:rows], reference)
        return self.code_classifier(self.norm(x[:, pose_tokens.shape[1] :]), self.tokenizer.codebook)


class TokenEmbedding(nn.Module):
    """Token and position embeddings: ids (B, L) with [MASK] = V -> (B, L, dim).

    from_codebook: the embedding is a linear map of the code vectors, which keeps the geometry that they represent.
    """

    def __init__(self, tokenizer: VQMano, dim: int, from_codebook: bool) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.codes: nn.Module = (
            nn.Sequential(nn.Linear(code_dim, dim), nn.LayerNorm(dim)) if from_codebook else nn.Embedding(size, dim)
        )
        self.mask_token = nn.Parameter(torch.randn(1, dim))
        # As large as the token embedding: tokens of an all-[MASK] sequence differ only by their positions.
        self.position_embedding = nn.Parameter(torch.randn(tokenizer.num_tokens, dim))

    def forward(self, ids: Tensor, codebook: Tensor) -> Tensor:
        masked = ids == len(codebook)
        ids = ids.masked_fill(masked, 0)
        if isinstance(self.codes, nn.Embedding):
            codes = self.codes(ids)
        elif not torch.compiler.is_exporting() and ids.numel() < len(codebook):
            codes = self.codes(codebook[ids])
        else:  # embed every code once rather than every token; always in an exported graph, for any number of tokens
            codes = self.codes(codebook)[ids]
        return torch.where(masked[..., None], self.mask_token, codes) + self.position_embedding
