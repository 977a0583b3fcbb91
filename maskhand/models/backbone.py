"""The image encoder: a timm vision transformer whose patch tokens form a feature map (paper section 3.2.1).

The square crop's central 3:4 columns enter (256 x 192 of a 256-px crop), so a patch of 16 px gives 16 x 12 tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskhand.config import BackboneConfig
from maskhand.models.pretrained import BackboneError, pretrained_weights
from maskhand.models.torchvision_shim import prepare_torchvision


class ImageEncoder(nn.Module):
    """A vision transformer: images (B, 3, H, W) -> feature map (B, C, H / patch, W / patch)."""

    vit: Any

    def __init__(self, cfg: BackboneConfig, crop_px: int) -> None:
        """`cfg.kwargs` go to timm; `patch_padding` among them pads the patch convolution (ViTPose and HaMeR use 2)."""
        super().__init__()
        prepare_torchvision()
        import timm

        kwargs = {"num_classes": 0, "global_pool": "", "class_token": False, **cfg.kwargs}
        padding = kwargs.pop("patch_padding", 0)
        try:
            vit: Any = timm.create_model(cfg.name, img_size=(crop_px, crop_px * 3 // 4), **kwargs)
            patch_px = vit.patch_embed.patch_size[0]
        except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
            raise BackboneError(
                f"model.backbone: timm cannot build a vision transformer {cfg.name!r} with {kwargs} ({error})"
            ) from None
        if crop_px % (4 * patch_px):
            raise BackboneError(
                f"data.crop_px is {crop_px}; for the patches of {patch_px} px of {cfg.name} it must be a multiple of "
                f"{4 * patch_px}, so that 3/4 of it fits patches as well"
            )
        vit.patch_embed.proj.padding = (padding, padding)
        vit.set_grad_checkpointing(cfg.gradient_checkpointing)
        self.vit = vit
        self.image_size: tuple[int, int] = (crop_px, crop_px * 3 // 4)
        self.prefix_tokens: int = vit.num_prefix_tokens
        self.channels: int = vit.num_features
        self.grid: tuple[int, int] = vit.patch_embed.grid_size

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.vit.forward_features(image)[:, self.prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, self.grid)

    def load_pretrained(self, path: str | Path) -> None:
        """Load weights of timm, MAE, ViTPose or HaMeR; see `models.pretrained`, whose BackboneError it raises."""
        self.vit.load_state_dict(pretrained_weights(path, self.vit.state_dict(), self.grid))
