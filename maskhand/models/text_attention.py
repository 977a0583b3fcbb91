"""Cross-attention of pose tokens over the tokens of a text: it has no places, so there is nothing to deform.

The same two verbs as `deformable.DeformableCrossAttention`: `project` once per text, `forward` in every iteration.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskhand.models.attention import Attention
from maskhand.models.text_encoder import TextTokens


class TextCrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, source_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, source_dim=source_dim)

    def project(self, text: TextTokens) -> tuple[Tensor, ...]:
        """Keys and values (B, heads, N, dim / heads), and which of them are known (B, 1, 1, N)."""
        return *self.attention.keys_and_values(text.tokens), text.known[:, None, None]

    def forward(self, queries: Tensor, reference: Tensor | None, values: Sequence[Tensor]) -> Tensor:
        """queries (B * H, K, dim), the H strings of a text together; nothing of the text is copied for them."""
        keys, said, known = values
        by_text = queries.reshape(len(keys), -1, queries.shape[-1])
        return self.attention.attend(by_text, keys, said, known).view_as(queries)
