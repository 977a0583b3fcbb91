"""Multi-head attention over a few tokens, through PyTorch's fused kernel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Queries (B, K, dim) look at `source` (B, N, source_dim): self-attention when both are the same."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, source_dim: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention width {dim} is not a multiple of its {heads} heads; change dim or heads")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(source_dim or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, source: Tensor, known: Tensor | None = None) -> Tensor:
        """known (B, 1, 1, N) bool: which of the source may be looked at; None: all of it."""
        return self.attend(queries, *self.keys_and_values(source), known)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Two of (B, heads, N, dim / heads): all that the attention wants of its source."""
        k, v = self.key_value(source).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, known: Tensor | None = None) -> Tensor:
        q = self._split(self.query(queries))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=known, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))


class DecoderLayer(nn.Module):
    """Queries (B, Q, dim) look at each other, then at `source` (B, N, source_dim); on normalized input, added."""

    def __init__(self, dim: int, heads: int, source_dim: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.own = Attention(dim, heads, dropout)
        self.cross = Attention(dim, heads, dropout, source_dim=source_dim)
        self.ffn = feed_forward(dim, 2 * dim, dropout)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        own, cross, ffn = self.norms
        normed = own(x)
        x = x + self.own(normed, normed)
        x = x + self.cross(cross(x), source)
        return x + self.ffn(ffn(x))
