"""What every hand network is: an encoder, a frozen tokenizer and a hand model, trained and asked the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import ModelConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.backbone import make_image_encoder
from maskhand.models.vq_mano import VQMano

_MULTIPLYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Context:
    """What a network knows about B images (texts) before any token; from a network without tokens, also the pose."""

    values: tuple[tuple[Tensor, ...], ...]
    """By layer what its cross-attention reads: [level] (B * heads, dim / heads, h, w), values of the deformable one; of
    a text keys, values and which of them are known."""
    pose_tokens: Tensor
    """(B, P, dim) tokens of the 2D pose; P = 0, 1 or 21."""
    keypoints_2d: Tensor
    """(B, 21, 3) the 2D pose itself, as in HandBatch."""
    betas: Tensor
    """(B, 10)."""
    placement: Tensor
    """(B, 3) scale, and the place of the hand's middle in the crop; `place_camera` makes the crop camera of it."""
    rotmats: Tensor | None = None
    """(B, 16, 3, 3) from a network without tokens."""


@dataclass(frozen=True)
class TransformerOutput:
    """What a network says in training: a distribution over codes, or (`rotmats`) the pose itself."""

    logits: Tensor | None
    """(B, L, V)."""
    betas: Tensor
    """(B, 10)."""
    placement: Tensor
    """(B, 3) scale, and the place of the hand's middle in the crop; `place_camera` makes the crop camera of it."""
    rotmats: Tensor | None = None
    """(B, 16, 3, 3) from a network without tokens; its `logits` are None."""

    def float(self) -> Self:
        """The same in fp32."""
        logits, rotmats = (None if x is None else x.float() for x in (self.logits, self.rotmats))
        return type(self)(logits, self.betas.float(), self.placement.float(), rotmats)


def seen_keypoints(keypoints_2d: Tensor, drop_pose: Tensor | None) -> Tensor:
    """The 2D pose (B, 21, 3) as a network is to see it: unseen where `drop_pose` (B,) bool."""
    return keypoints_2d if drop_pose is None else keypoints_2d.masked_fill(drop_pose[:, None, None], 0.0)


class HandNetwork(nn.Module, ABC):
    """Holds the frozen tokenizer, and the hand model (whose buffers are not part of the state dict)."""

    encoder: Any
    """`ImageEncoder`, or a `TextEncoder`; None of a network that sees keypoints alone."""

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        """image_size_px: height and width of the images (`DataConfig.image_size_px`)."""
        super().__init__()
        self.tokenizer = tokenizer.freeze()
        self.mano = mano
        self.num_tokens = tokenizer.num_tokens
        self.mask_id = tokenizer.codebook_size
        self.encoder = self._make_encoder(cfg, image_size_px)

    def _make_encoder(self, cfg: ModelConfig, image_size_px: tuple[int, int]) -> nn.Module | None:
        return make_image_encoder(cfg.backbone, image_size_px)

    def condition(self, batch: HandBatch) -> Tensor:
        """What the network looks at in a batch: the images, or the ids of the captions."""
        return batch.image

    def image_maps(self, condition: Tensor, drop_image: Tensor | None) -> tuple[Tensor, ...]:
        """The encoder's maps (B, C, h, w), the coarsest first; zeros where `drop_image` (B,) bool."""
        maps = self.encoder(condition)
        return maps if drop_image is None else tuple(m.masked_fill(drop_image[:, None, None, None], 0.0) for m in maps)

    @abstractmethod
    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        """Everything that depends on the image (or text) alone, once.

        condition: (B, 3, H, 3/4 H) images, or what `condition` gives; keypoints_2d (B, 21, 3); both as in HandBatch.
        drop_image (B,) bool: its features become zero (the paper's unconditional mode, supplement G).
        drop_pose (B,) bool: the 2D pose counts as unseen.
        """

    def parameter_groups(self, lr: float, lr_backbone: float | None, weight_decay: float) -> list[dict[str, Any]]:
        """Trainable parameters for an optimizer: the encoder at its own rate, decay on what multiplies features only
        (not on biases and norms, nor on what is learned as a place: positions, queries, reference points).

        A rate of 0 freezes the encoder: no gradient is computed for it.
        """
        if lr_backbone == 0 and self.encoder is not None:
            self.encoder.requires_grad_(False)
        kernels = {id(m.weight) for m in self.modules() if isinstance(m, _MULTIPLYING)}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = lr_backbone if lr_backbone is not None and name.startswith("encoder.") else lr
                decay = weight_decay if id(parameter) in kernels else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        # As few groups as there are settings: the engine reduces and gathers each on its own.
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]
