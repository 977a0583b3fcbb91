"""CLIP's text tower (Radford et al. 2021), frozen: a reimplementation with the names of OpenAI's state dict.

    OpenAI (here)                                  Hugging Face `CLIPModel`, `CLIPTextModelWithProjection`
    token_embedding.weight                         text_model.embeddings.token_embedding.weight
    positional_embedding                           text_model.embeddings.position_embedding.weight
    transformer.resblocks.N.attn.in_proj_*         text_model.encoder.layers.N.self_attn.{q,k,v}_proj.*, stacked
    transformer.resblocks.N.attn.out_proj.*        ....self_attn.out_proj.*
    transformer.resblocks.N.ln_1.*, ln_2.*         ....layer_norm1.*, layer_norm2.*
    transformer.resblocks.N.mlp.c_fc.*, c_proj.*   ....mlp.fc1.*, fc2.*
    ln_final.*                                     text_model.final_layer_norm.*
    text_projection                                text_projection.weight, transposed

The image tower and the temperature (`visual.*`, `vision_model.*`, `visual_projection.*`, `logit_scale`) are left out.
The pooled token is CLIP's text embedding, the projected end-of-text token; word tokens are the normalized outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from maskhand.config import TextConfig
from maskhand.models.pretrained import BackboneError, read_weights
from maskhand.models.text_encoder import TextEncoder, TextTokens
from maskhand.models.weight_files import misfit
from maskhand.text import CLIP_VOCABULARY

KEY = "model.text.checkpoint"
LEFT_OUT = ("visual.", "vision_model.", "visual_projection.", "logit_scale", "input_resolution", "context_length",
            "vocab_size", "text_model.embeddings.position_ids")  # fmt: skip

_HUGGING_FACE = (
    (r"text_model\.embeddings\.token_embedding\.weight", "token_embedding.weight"),
    (r"text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"text_model\.encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.", ".attn."),
)


class ClipTextEncoder(TextEncoder):
    """CLIP's frozen text tower, random until `load_pretrained`. ViT-B/32 is 512 wide and 12 deep with 8 heads."""

    causal_mask: Tensor

    def __init__(self, cfg: TextConfig, vocabulary: int = CLIP_VOCABULARY) -> None:
        super().__init__()
        self.channels = cfg.width
        self.token_embedding = nn.Embedding(vocabulary, cfg.width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(cfg.length, cfg.width))
        self.transformer = _Transformer(cfg.width, cfg.heads, cfg.depth)
        self.ln_final = nn.LayerNorm(cfg.width)
        self.text_projection = nn.Parameter(cfg.width**-0.5 * torch.randn(cfg.width, cfg.width))
        future = torch.ones(cfg.length, cfg.length, dtype=torch.bool, device="cpu").triu(1)  # see `model_from_weights`
        self.register_buffer("causal_mask", future, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Ignored: the encoder stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> TextTokens:
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            x = block(x, self.causal_mask[:length, :length])
        words = self.ln_final(x)
        end = ids.argmax(1)  # the end token has the largest id
        pooled = words[torch.arange(len(ids), device=ids.device), end] @ self.text_projection
        mask = torch.arange(length, device=ids.device) <= end[:, None]
        return TextTokens(
            torch.cat([pooled[:, None], words], dim=1), torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
        )

    def load_pretrained(self, path: str | Path) -> None:
        """Weights of a file with OpenAI's or Hugging Face's names; BackboneError when they do not fit."""
        self.load_state_dict(clip_text_weights(read_weights(path, KEY), self.state_dict(), path))


class _Transformer(nn.Module):
    """A container that gives the blocks their name in the state dict."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", _QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def clip_text_weights(
    stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path = "state dict"
) -> dict[str, Tensor]:
    """The text tower's part of a CLIP state dict, under OpenAI's names, fp32; BackboneError when it does not fit."""
    weights = {k: v.float() for k, v in stored.items() if not k.startswith(LEFT_OUT)}
    if any(key.startswith("text_model.") for key in weights):
        weights = _from_hugging_face(weights)
    if found := misfit(wanted, weights):
        raise BackboneError(f"{path}: not CLIP's text tower of this size ({found}); check {KEY} and model.text's sizes")
    return weights


def _from_hugging_face(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in stored.items():
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    if "text_projection.weight" in renamed:  # a linear layer there, a matrix on the right here
        renamed["text_projection"] = renamed.pop("text_projection.weight").T.contiguous()
    for name in [n for n in renamed if ".attn.q_proj." in n]:
        block, _, kind = name.partition(".attn.q_proj.")
        parts = [renamed.pop(f"{block}.attn.{p}_proj.{kind}", None) for p in "qkv"]
        renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat([part for part in parts if part is not None])
    return renamed
