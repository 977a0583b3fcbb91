"""Multi-head attention over a few tokens, through PyTorch's fused kernel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention of queries (B, K, dim) to `source` (B, N, source_dim)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, source_dim: int | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"attention width {dim} is not a multiple of its {heads} heads; change dim or heads")
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.kv_proj = nn.Linear(source_dim or dim, 2 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, source: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """attn_mask (B, 1, 1, N) bool: True where the source is attended to; None: everywhere."""
        return self.attend(queries, *self.keys_and_values(source), attn_mask)

    def keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the source, (B, heads, N, dim / heads) each."""
        k, v = self.kv_proj(source).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """As `forward`, on the keys and values of `keys_and_values`."""
        q = self._split(self.q_proj(queries))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, keys, values, attn_mask=attn_mask, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(dim: int, hidden: int, dropout: float) -> nn.Sequential:
    """A two-layer perceptron with GELU and dropout."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))


class DecoderLayer(nn.Module):
    """A pre-norm decoder layer: queries (B, Q, dim) attend to each other, then to `source` (B, N, source_dim)."""

    def __init__(self, dim: int, heads: int, source_dim: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.self_attn = Attention(dim, heads, dropout)
        self.cross_attn = Attention(dim, heads, dropout, source_dim=source_dim)
        self.ffn = feed_forward(dim, 2 * dim, dropout)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        self_norm, cross_norm, ffn_norm = self.norms
        normed = self_norm(x)
        x = x + self.self_attn(normed, normed)
        x = x + self.cross_attn(cross_norm(x), source)
        return x + self.ffn(ffn_norm(x))
