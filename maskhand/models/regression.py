"""The plain alternative to masked modelling: sixteen queries look at the picture's tokens and say the pose at once.

HaMeR's design on the same encoder, shape and camera head and losses, so that a comparison differs in nothing but how
the pose comes about. It says one hand and no doubt: no tokens are guessed, no 2D pose is read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import rot6d_to_matrix
from maskhand.models.attention import DecoderLayer
from maskhand.models.network import Context, HandNetwork, TransformerOutput
from maskhand.models.shape_camera_head import ShapeCameraHead
from maskhand.models.vq_mano import VQMano


class RegressionNetwork(HandNetwork):
    """`model.decoder: regression`. The keys of the masked decoder (pyramid, GAPR, synthesizer, ...) play no part."""

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, crop_px: int) -> None:
        super().__init__(cfg, tokenizer, mano, crop_px)
        self.shape_camera = ShapeCameraHead(self.encoder.channels, cfg.head_dim, cfg.head_depth, cfg.heads, cfg.dropout)
        self.queries = nn.Parameter(torch.randn(NUM_MANO_JOINTS, cfg.dim))
        self.norm_source = nn.LayerNorm(self.encoder.channels)
        self.layers = nn.ModuleList(
            DecoderLayer(cfg.dim, cfg.heads, self.encoder.channels, cfg.dropout) for _ in range(cfg.synth_layers)
        )
        self.norm = nn.LayerNorm(cfg.dim)
        self.to_rot6d = nn.Linear(cfg.dim, 6)
        nn.init.xavier_uniform_(self.to_rot6d.weight, gain=0.01)
        self.to_rot6d.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))  # begin at the flat hand

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        tokens = self.picture_tokens(condition, drop_image)
        betas, placement = self.shape_camera(tokens)
        source = self.norm_source(tokens.flatten(2).transpose(1, 2))
        x = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, source)
        rotmats = rot6d_to_matrix(self.to_rot6d(self.norm(x)).float())
        return Context((), x[:, :0], keypoints_2d, betas, placement, rotmats)

    def forward(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        ids: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> TransformerOutput:
        """As MaskedTransformer's; `keypoints_2d`, `ids` and `drop_pose` are not looked at."""
        context = self.encode(condition, keypoints_2d, drop_image=drop_image)
        return TransformerOutput(None, context.betas, context.placement, context.rotmats)
