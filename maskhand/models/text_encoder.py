"""Text encoders: ids of a caption -> a token for the whole text and one per piece of it.

    bytes   a small transformer over UTF-8 bytes, trained with the rest; needs no file and no vocabulary
    clip    CLIP's text tower, frozen, in `clip_text.py`; needs its weights and its vocabulary

Both give the same record, so that the network behind them does not know which one it has.
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
    """What B captions say."""

    tokens: Tensor
    """(B, 1 + W, C); the first speaks for the whole text."""
    known: Tensor
    """(B, 1 + W) bool: False behind the end of a caption."""

    @property
    def whole(self) -> Tensor:
        """(B, C) the token of the whole text."""
        return self.tokens[:, 0]

    def without(self, hidden: Tensor) -> TextTokens:
        """hidden (B,) bool: whose text says nothing; its tokens become zeros, and one of them is left to look at."""
        first = torch.arange(self.known.shape[1], device=hidden.device) == 0
        return TextTokens(
            self.tokens.masked_fill(hidden[:, None, None], 0.0), torch.where(hidden[:, None], first, self.known)
        )


class TextEncoder(nn.Module, ABC):
    """ids (B, W) int64, zeros after the end (`maskhand.text.caption_ids`) -> TextTokens."""

    channels: int

    @abstractmethod
    def forward(self, ids: Tensor) -> TextTokens: ...


class ByteTextEncoder(TextEncoder):
    """Bytes and their places, a learned token for the whole, and a few transformer layers that look at all of them."""

    def __init__(self, cfg: TextConfig) -> None:
        super().__init__()
        self.channels = cfg.width
        self.byte = nn.Embedding(256, cfg.width)
        self.position = nn.Parameter(torch.randn(cfg.length, cfg.width))
        self.whole = nn.Parameter(torch.randn(1, cfg.width))
        self.layers = nn.ModuleList(_Layer(cfg.width, cfg.heads) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width)

    def forward(self, ids: Tensor) -> TextTokens:
        said = self.byte(ids) + self.position[: ids.shape[1]]
        x = torch.cat([self.whole.expand(len(ids), 1, -1), said], dim=1)
        known = torch.cat([torch.ones_like(ids[:, :1], dtype=torch.bool), ids > 0], dim=1)
        for layer in self.layers:
            x = layer(x, known)
        return TextTokens(self.norm(x), known)


class _Layer(nn.Module):
    """Self-attention among the known tokens, feed-forward; each on normalized input, added to the stream."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.own = Attention(dim, heads)
        self.ffn = feed_forward(dim, 2 * dim, 0.0)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        own, ffn = self.norms
        normed = own(x)
        x = x + self.own(normed, normed, known[:, None, None])
        return x + self.ffn(ffn(x))
