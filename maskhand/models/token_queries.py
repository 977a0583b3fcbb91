"""Token queries: features for each pose token from image and 2D pose as a whole (`model.token_queries: conditioned`).

Attention gathers evidence joint by joint. How a hand is bent follows from all joints together, and an MLP of the
concatenated joints learns this from far fewer hands (the lifting baseline is just such an MLP). Its output is added to
the embeddings of the pose tokens, visible or masked, as DETR's successors initialize their queries from the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.conventions import NUM_JOINTS
from maskhand.models.image_joints import CHANNELS
from maskhand.models.image_joints import INPUT_SCALE as IMAGE_SCALE
from maskhand.models.pose_graph import PoseInputKind, PoseInputs
from maskhand.models.vq_mano import VQMano

_IMAGE_CHANNELS = 128
_TOKEN_CHANNELS = 32


class TokenQueries(nn.Module):
    """2D pose, coarsest map and the joints read from it -> queries (B, L, dim)."""

    image_scale: Tensor

    def __init__(
        self,
        tokens: int,
        dim: int,
        channels: int,
        *,
        width: int,
        inputs: PoseInputKind,
        image_joints: bool,
        dropout: float,
    ) -> None:
        """tokens: L; channels: of the coarsest map; width: of the MLP."""
        super().__init__()
        self.tokens = tokens
        self.inputs = PoseInputs(inputs)
        with torch.device("cpu"):  # a constant, see `model_from_weights`
            self.register_buffer("image_scale", torch.tensor(IMAGE_SCALE), persistent=False)
        size = NUM_JOINTS * (self.inputs.channels + CHANNELS * image_joints) + _IMAGE_CHANNELS
        self.from_image = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, _IMAGE_CHANNELS))
        self.input_proj = nn.Linear(size, width)
        self.block = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.to_tokens = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, tokens * _TOKEN_CHANNELS))
        self.to_queries = nn.Linear(_TOKEN_CHANNELS, dim)

    def forward(self, keypoints_2d: Tensor, coarsest: Tensor, image_joints: Tensor | None) -> Tensor:
        """keypoints_2d (B, 21, 7); coarsest (B, C, h, w), zeros without image; image_joints (B, 21, 5) as in
        `models.image_joints`, if the network has them."""
        parts = [self.inputs(keypoints_2d).flatten(1), self.from_image(coarsest.mean((2, 3)))]
        if image_joints is not None:
            parts.append((image_joints * self.image_scale).flatten(1))
        x = self.input_proj(torch.cat(parts, dim=1))
        x = x + self.block(x)
        return self.to_queries(self.to_tokens(x).unflatten(1, (self.tokens, _TOKEN_CHANNELS)))


def make_token_queries(cfg: ModelConfig, tokenizer: VQMano, channels: int) -> TokenQueries | None:
    """The token queries of the recipe; channels: of the encoder's coarsest map. None if tokens have only embeddings."""
    if cfg.token_queries == "position":
        return None
    return TokenQueries(
        tokenizer.num_tokens,
        cfg.dim,
        channels,
        width=cfg.query_width,
        inputs=cfg.pose2d_inputs,
        image_joints=cfg.image_joints,
        dropout=cfg.dropout,
    )
