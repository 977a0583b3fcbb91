"""The image encoder: any timm vision transformer, read as a map of feature tokens (paper section 3.2.1).

The square crop's central 3:4 columns enter (256 x 192 of a 256-px crop), so a patch of 16 px gives 16 x 12 tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.config import BackboneConfig
from maskhand.models.torchvision_shim import prepare_torchvision


class BackboneError(ValueError):
    """A backbone that cannot be built or whose weights do not fit; the message says which key and what to do."""


class ImageEncoder(nn.Module):
    """Pictures (B, 3, H, W) -> tokens (B, C, H / patch, W / patch)."""

    vit: Any

    def __init__(self, cfg: BackboneConfig, crop_px: int) -> None:
        """`cfg.kwargs` go to timm; `patch_padding` among them pads the patch convolution (ViTPose and HaMeR use 2)."""
        super().__init__()
        prepare_torchvision()
        import timm

        kwargs = {"num_classes": 0, "global_pool": "", "class_token": False, **cfg.kwargs}
        padding = kwargs.pop("patch_padding", 0)
        if crop_px % 64:
            raise BackboneError(
                f"data.crop_px is {crop_px}; it must be a multiple of 64, so that 3/4 of it fits patches"
            )
        try:
            vit: Any = timm.create_model(cfg.name, img_size=(crop_px, crop_px * 3 // 4), **kwargs)
        except (RuntimeError, TypeError) as error:
            raise BackboneError(f"model.backbone: timm cannot build {cfg.name!r} with {kwargs} ({error})") from None
        vit.patch_embed.proj.padding = (padding, padding)
        vit.set_grad_checkpointing(cfg.gradient_checkpointing)
        self.vit = vit
        self.prefix_tokens: int = vit.num_prefix_tokens
        self.channels: int = vit.num_features
        self.grid: tuple[int, int] = vit.patch_embed.grid_size

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.vit.forward_features(image)[:, self.prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, self.grid)

    def load_pretrained(self, path: str | Path) -> None:
        """Load timm weights, or a ViTPose / HaMeR backbone (keys under `backbone.`).

        Position embeddings must have this encoder's grid. Raises BackboneError naming the keys that do not fit.
        """
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise BackboneError(
                f"model.backbone.checkpoint: no file {path}; give a path, or null to start anew"
            ) from None
        for wrapper in ("state_dict", "model"):
            stored = stored.get(wrapper, stored)
        wanted = self.vit.state_dict()
        converted = timm_keys(stored, with_class_token="cls_token" in wanted)
        wrong = [k for k, v in wanted.items() if k not in converted or converted[k].shape != v.shape]
        if wrong:
            raise BackboneError(
                f"{path}: {len(wrong)} of {len(wanted)} weights are missing or of another shape, first {wrong[0]!r} "
                f"(expected {tuple(wanted[wrong[0]].shape)}); check model.backbone.name, its kwargs and data.crop_px"
            )
        self.vit.load_state_dict({k: converted[k] for k in wanted})


def timm_keys(stored: dict[str, Tensor], with_class_token: bool) -> dict[str, Tensor]:
    """Weights under timm's names. ViTPose writes `backbone.` before each key and calls the last norm `last_norm`.

    A position embedding whose first row belongs to a class token that the encoder lacks is folded into the others, as
    ViTPose does (HaMeR `models/backbones/vit.py`: pos_embed[:, 1:] + pos_embed[:, :1]).
    """
    prefix = "backbone." if any(k.startswith("backbone.") for k in stored) else ""
    weights = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    weights = {
        ("norm" + k.removeprefix("last_norm") if k.startswith("last_norm") else k): v for k, v in weights.items()
    }
    position = weights.get("pos_embed")
    if position is not None and not with_class_token and (position.shape[1] % 2 == 1):
        weights["pos_embed"] = position[:, 1:] + position[:, :1]
    return weights
