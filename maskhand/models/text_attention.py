"""Cross-attention of pose tokens to the tokens of a text; a text has no spatial positions for deformable attention.

It has the same methods as `deformable.DeformableCrossAttention`: `project` once per text, `forward` in every iteration.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskhand.models.attention import Attention
from maskhand.models.text_encoder import TextTokens


class TextCrossAttention(nn.Module):
    """Multi-head attention of pose tokens to text tokens."""

    def __init__(self, dim: int, heads: int, source_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, source_dim=source_dim)

    def project(self, text: TextTokens) -> tuple[Tensor, ...]:
        """Keys and values (B, heads, N, dim / heads), and their attention mask (B, 1, 1, N)."""
        return *self.attention.keys_and_values(text.tokens), text.mask[:, None, None]

    def forward(self, queries: Tensor, reference: Tensor | None, values: Sequence[Tensor]) -> Tensor:
        """queries (B * H, K, dim), the H token sequences of a text consecutive; they share its keys and values."""
        keys, text_values, attn_mask = values
        by_text = queries.reshape(len(keys), -1, queries.shape[-1])
        return self.attention.attend(by_text, keys, text_values, attn_mask).view_as(queries)
