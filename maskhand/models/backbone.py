"""The image encoders: a vision transformer of timm (paper section 3.2.1), or the open hand landmark network.

Their input is the central columns of the square crop (256 x 192 of a 256-px crop), so a vision transformer with
patches of 16 px gives 16 x 12 tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.batch import IMAGENET_MEAN, IMAGENET_STD
from maskhand.config import BackboneConfig
from maskhand.models.hand_landmark import BLOCKS, CHANNELS, INPUT_PX, POOLED, HandLandmarkNet
from maskhand.models.pretrained import BackboneError, pretrained_weights, read_weights
from maskhand.models.torchvision_shim import prepare_torchvision


class ImageEncoder(nn.Module, ABC):
    """ImageNet-normalized images (B, 3, H, W) -> feature maps (B, C, h, w), the coarsest first."""

    image_size: tuple[int, int]
    """Height and width of the images, pixels."""
    map_channels: Mapping[int, int]
    """Resolution of a map relative to the coarsest -> its channels, in the order of the maps; the first key is 1."""

    @property
    def aspect(self) -> float:
        """Width over height of the images."""
        return self.image_size[1] / self.image_size[0]

    @property
    def channels(self) -> int:
        """Channels of the coarsest map."""
        return self.map_channels[1]

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]: ...

    def published_joints(self, coarsest: Tensor) -> Tensor | None:
        """(B, 21, 5) joints as in `models.image_joints`, by published output layers; None for an encoder without."""
        return None

    @abstractmethod
    def load_pretrained(self, path: str | Path) -> None:
        """Load published weights. Raises BackboneError (TfliteError for the hand landmark network)."""


def make_image_encoder(cfg: BackboneConfig, image_size_px: tuple[int, int]) -> ImageEncoder:
    """The recipe's encoder for images of this height and width. Raises BackboneError for unsupported settings."""
    if cfg.is_hand_landmark:
        return LandmarkEncoder(cfg, image_size_px)
    return VisionTransformerEncoder(cfg, image_size_px)


class VisionTransformerEncoder(ImageEncoder):
    """A vision transformer whose patch tokens form one map (B, C, H / patch, W / patch)."""

    vit: Any

    def __init__(self, cfg: BackboneConfig, image_size_px: tuple[int, int]) -> None:
        """`cfg.kwargs` go to timm; `patch_padding` among them pads the patch convolution (ViTPose and HaMeR use 2)."""
        super().__init__()
        prepare_torchvision()
        import timm

        kwargs = {"num_classes": 0, "global_pool": "", "class_token": False, **cfg.kwargs}
        padding = kwargs.pop("patch_padding", 0)
        try:
            vit: Any = timm.create_model(cfg.name, img_size=image_size_px, **kwargs)
            patch_px = vit.patch_embed.patch_size[0]
        except (RuntimeError, TypeError, AssertionError, AttributeError) as error:
            raise BackboneError(
                f"model.backbone: timm cannot build a vision transformer {cfg.name!r} with {kwargs} ({error})"
            ) from None
        crop_px, width_px = image_size_px
        multiple = patch_px if width_px == crop_px else 4 * patch_px
        if crop_px % multiple:
            raise BackboneError(
                f"data.crop_px is {crop_px}; for the patches of {patch_px} px of {cfg.name} it must be a multiple of "
                f"{multiple}" + (", so that 3/4 of it fits patches as well" if multiple > patch_px else "")
            )
        vit.patch_embed.proj.padding = (padding, padding)
        vit.set_grad_checkpointing(cfg.gradient_checkpointing)
        self.vit = vit
        self.image_size = image_size_px
        self.prefix_tokens: int = vit.num_prefix_tokens
        self.map_channels = {1: vit.num_features}
        self.grid: tuple[int, int] = vit.patch_embed.grid_size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        tokens = self.vit.forward_features(image)[:, self.prefix_tokens :]
        return (tokens.transpose(1, 2).unflatten(2, self.grid),)

    def load_pretrained(self, path: str | Path) -> None:
        """Weights of timm, MAE, ViTPose or HaMeR; see `models.pretrained`, whose BackboneError it raises."""
        self.vit.load_state_dict(pretrained_weights(path, self.vit.state_dict(), self.grid))


class LandmarkEncoder(ImageEncoder):
    """The hand landmark network: maps at strides 32 (1152 channels; its outputs are linear in their mean), 16, 8, 4."""

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: BackboneConfig, image_size_px: tuple[int, int]) -> None:
        """`cfg.kwargs`: `frozen_blocks`, the first blocks (0 to 15) that keep the published weights."""
        super().__init__()
        frozen_blocks = cfg.kwargs.get("frozen_blocks", 0)
        if set(cfg.kwargs) - {"frozen_blocks"} or frozen_blocks not in range(len(BLOCKS) + 1):
            raise BackboneError(
                f"model.backbone.kwargs is {cfg.kwargs}; hand_landmark takes frozen_blocks, 0 to {len(BLOCKS)}, only"
            )
        if any(px % 32 for px in image_size_px):
            raise BackboneError(
                f"data.crop_px and data.crop_aspect give images of {image_size_px[0]} x {image_size_px[1]} px; "
                "hand_landmark needs multiples of 32"
            )
        self.net = HandLandmarkNet()
        self.net.heads.requires_grad_(False)  # `models.image_joints` trains a correction of them
        if frozen_blocks:
            for part in (self.net.stem, self.net.separable, self.net.blocks[:frozen_blocks]):
                part.requires_grad_(False)
        self.image_size = image_size_px
        self.map_channels = {1: POOLED} | dict(zip((2, 4, 8), reversed(CHANNELS[:-1]), strict=True))
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):  # not in the state dict: made on the CPU
            self.register_buffer(name, torch.tensor(values, device="cpu")[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # Channels last: convolutions on the CPU take two thirds of the time.
        plain = (image * self.std + self.mean).contiguous(memory_format=torch.channels_last)
        features = self.net(plain)
        return (features.last, *reversed(features.maps[:-1]))

    def published_joints(self, coarsest: Tensor) -> Tensor:
        keypoints, world_m = self.net.joints(coarsest)
        return torch.cat([keypoints[..., :2] / INPUT_PX - 0.5, world_m - world_m[:, :1]], dim=-1)

    def load_pretrained(self, path: str | Path) -> None:
        """The published .tflite file, or model.pt of a bundle with this encoder."""
        if Path(path).suffix == ".tflite":
            self.net.load_tflite(path)
            return
        stored = read_weights(path, "model.backbone.checkpoint")
        names = self.net.state_dict().keys()
        missing = [name for name in names if f"encoder.net.{name}" not in stored]
        if missing:
            raise BackboneError(
                f"model.backbone.checkpoint: {path} has no encoder.net.{missing[0]}; give model.pt of a bundle whose "
                "encoder is hand_landmark"
            )
        self.net.load_state_dict({name: stored[f"encoder.net.{name}"] for name in names})
