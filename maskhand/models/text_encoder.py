"""Text encoders: ids of a caption -> one pooled token for the whole text and one token per byte or byte pair.

    bytes   a small transformer over UTF-8 bytes, trained with the network; needs no file and no vocabulary
    clip    CLIP's text tower, frozen, in `clip_text.py`; needs its weights and its vocabulary

Both return the same record, so the network does not depend on which one is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskhand.config import TextConfig
from maskhand.models.attention import Attention, feed_forward


@dataclass(frozen=True)
class TextTokens:
    """Encoded captions."""

    tokens: Tensor
    """(B, 1 + W, C); the first is the pooled token of the whole text."""
    mask: Tensor
    """(B, 1 + W) bool: False after the end of a caption (padding)."""

    @property
    def pooled(self) -> Tensor:
        """(B, C) the token of the whole text."""
        return self.tokens[:, 0]

    def drop(self, dropped: Tensor) -> TextTokens:
        """Removes the condition where dropped (B,) bool is True: zero tokens, all but the first masked."""
        first = torch.arange(self.mask.shape[1], device=dropped.device) == 0
        return TextTokens(
            self.tokens.masked_fill(dropped[:, None, None], 0.0), torch.where(dropped[:, None], first, self.mask)
        )


class TextEncoder(nn.Module, ABC):
    """The interface: ids (B, W) int64, zeros after the end (`maskhand.text.caption_ids`) -> TextTokens."""

    channels: int

    @abstractmethod
    def forward(self, ids: Tensor) -> TextTokens: ...


class ByteTextEncoder(TextEncoder):
    """A small transformer encoder over byte embeddings, position embeddings and a learned pooled token."""

    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.channels = cfg.width
        self.byte_embedding = nn.Embedding(256, cfg.width)
        self.position_embedding = nn.Parameter(torch.randn(cfg.length, cfg.width))
        self.pooled_token = nn.Parameter(torch.randn(1, cfg.width))
        self.layers = nn.ModuleList(_Layer(cfg.width, cfg.heads) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width)

    def forward(self, ids: Tensor) -> TextTokens:
        embedded = self.byte_embedding(ids) + self.position_embedding[: ids.shape[1]]
        x = torch.cat([self.pooled_token.expand(len(ids), 1, -1), embedded], dim=1)
        mask = torch.cat([torch.ones_like(ids[:, :1], dtype=torch.bool), ids > 0], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        return TextTokens(self.norm(x), mask)


class _Layer(nn.Module):
    """A pre-norm transformer encoder layer with a padding mask."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.self_attn = Attention(dim, heads)
        self.ffn = feed_forward(dim, 2 * dim, 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        self_norm, ffn_norm = self.norms
        normed = self_norm(x)
        x = x + self.self_attn(normed, normed, mask[:, None, None])
        return x + self.ffn(ffn_norm(x))
