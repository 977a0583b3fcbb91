"""The interface of all hand networks: an encoder, a frozen tokenizer, a hand model, and their outputs.

In training the last ones of B hands may have no image (`data.posed_hands`); I is the number of hands with an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import ModelConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.backbone import make_image_encoder
from maskhand.models.image_joints import ImageJointReadout
from maskhand.models.vq_mano import VQMano

ANOTHER_HAND = 0.2
"""Mean distance, crop sides, from which on two sets of joints are of two hands."""
_WITH_WEIGHT_DECAY = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Context:
    """The encoding of B images (or texts), computed once; for a network without tokens also the pose."""

    values: tuple[tuple[Tensor, ...], ...]
    """[layer] inputs of its cross-attention: values [level] (I * heads, dim / heads, h, w) of deformable attention; or
    keys, values and attention mask of a text."""
    pose_tokens: Tensor
    """(B, P, dim) tokens of the 2D pose; P is 0, 1 or 21."""
    keypoints_2d: Tensor
    """(B, 21, 7) the 2D pose, as in HandBatch."""
    betas: Tensor
    """(B, 10)."""
    placement: Tensor
    """(B, 3) scale, and the center of the joints in crop coordinates; `place_camera` converts it to the crop camera."""
    rotmats: Tensor | None = None
    """(B, 16, 3, 3) from a network without tokens."""
    image_joints: Tensor | None = None
    """(B, 21, 5) joints predicted by the encoder, see `models.image_joints`; zeros without image, None without that
    readout."""
    queries: Tensor | None = None
    """(B, L, dim) added to the token embeddings, from image and 2D pose (`models.token_queries`); None: nothing."""

    def first(self, count: int) -> Context:
        """The context of the first `count` hands; `values` is not cut and must already be that of these hands."""
        of_hands = ("pose_tokens", "keypoints_2d", "betas", "placement", "rotmats", "image_joints", "queries")
        return replace(self, **{name: x[:count] for name in of_hands if (x := getattr(self, name)) is not None})

    def of_hand(self, number: int) -> Context:
        """The context of one of B hands that all have an image (or text)."""
        hands = len(self.betas)

        def part(x: Tensor) -> Tensor:  # the rows of a hand (one for each attention head) are consecutive
            return x.unflatten(0, (hands, -1))[number]

        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        values = tuple(tuple(part(x) for x in layer) for layer in self.values)
        return replace(self, values=values, **{name: part(x) for name, x in tensors.items()})


@dataclass(frozen=True)
class TransformerOutput:
    """The output of a training forward pass: logits over codes, or the pose itself (`rotmats`)."""

    logits: Tensor | None
    """(B, L, V)."""
    betas: Tensor
    """(B, 10)."""
    placement: Tensor
    """(B, 3) scale, and the center of the joints in crop coordinates; `place_camera` converts it to the crop camera."""
    rotmats: Tensor | None = None
    """(B, 16, 3, 3) from a network without tokens; its `logits` are None."""
    image_joints: Tensor | None = None
    """(B, 21, 5) as in `Context`."""

    def float(self) -> Self:
        """The same in fp32."""
        return replace(self, **{name: x.float() for name, x in vars(self).items() if x is not None})


def drop_keypoints(keypoints_2d: Tensor, drop_pose: Tensor | None) -> Tensor:
    """The 2D pose (B, 21, 7), set to zero (not detected) where `drop_pose` (B,) bool is True."""
    return keypoints_2d if drop_pose is None else keypoints_2d.masked_fill(drop_pose[:, None, None], 0.0)


def drop_contradicted(keypoints_2d: Tensor, image_joints: Tensor, tolerance: float) -> Tensor:
    """The 2D pose (B, 21, 7) with zeros (not detected) where its detected joints are more than `tolerance` crop sides,
    in the mean, from those that the encoder predicts, image_joints (I, 21, 5) of the first I hands.

    Beyond `ANOTHER_HAND` the encoder looks at another hand of the crop, and the 2D pose says which one is meant.
    """
    seen = keypoints_2d[: len(image_joints)]
    weight = (seen[..., 2] > 0).to(seen.dtype)
    distance = (seen[..., :2] - image_joints[..., :2]).norm(dim=-1)
    mean = (distance * weight).sum(1) / weight.sum(1).clamp_min(1)
    contradicted = (mean > tolerance) & (mean < ANOTHER_HAND)
    kept = seen.masked_fill(contradicted[:, None, None], 0.0)
    return kept if len(kept) == len(keypoints_2d) else torch.cat([kept, keypoints_2d[len(kept) :]])


def with_missing(x: Tensor, rows: int) -> Tensor:
    """(I, ...) -> (rows, ...), padded with zeros for hands without image."""
    return x if len(x) == rows else torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])


class HandNetwork(nn.Module, ABC):
    """The base class, with the frozen tokenizer and the hand model (whose buffers are not in the state dict)."""

    encoder: Any
    """`ImageEncoder` or `TextEncoder`; None for a network that reads only keypoints."""

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        """image_size_px: height and width of the images (`DataConfig.image_size_px`)."""
        super().__init__()
        self.tokenizer = tokenizer.freeze()
        self.mano = mano
        self.num_tokens = tokenizer.num_tokens
        self.mask_id = tokenizer.codebook_size
        self.encoder = self._build_encoder(cfg, image_size_px)
        self.joint_readout = ImageJointReadout(self.encoder.channels) if cfg.image_joints and cfg.sees_image else None
        self.pose2d_tolerance = cfg.pose2d_tolerance

    def _build_encoder(self, cfg: ModelConfig, image_size_px: tuple[int, int]) -> nn.Module | None:
        return make_image_encoder(cfg.backbone, image_size_px)

    @property
    def self_conditioned(self) -> bool:
        """Whether a pass depends on the expected hand of the previous pass (`model.ref_points: projected`)."""
        return False

    def condition(self, batch: HandBatch) -> Tensor:
        """The conditioning input of a batch: the images, or the ids of the captions."""
        return batch.image

    def image_maps(self, condition: Tensor, drop_image: Tensor | None) -> tuple[Tensor, ...]:
        """Feature maps (I, C, h, w) of the encoder, the coarsest first; zeros where `drop_image` (B,) bool is True."""
        maps = self.encoder(condition)
        if drop_image is None:
            return maps
        dropped = drop_image[: len(condition), None, None, None]
        return tuple(m.masked_fill(dropped, 0.0) for m in maps)

    def image_joints(self, coarsest: Tensor) -> Tensor | None:
        """(I, 21, 5) joints read from the coarsest map (I, C, h, w); None without `model.image_joints`."""
        if self.joint_readout is None:
            return None
        return self.joint_readout(coarsest, self.encoder.published_joints(coarsest))

    def read_pose(
        self, keypoints_2d: Tensor, image_joints: Tensor | None, drop_image: Tensor | None, drop_pose: Tensor | None
    ) -> Tensor:
        """The 2D pose (B, 21, 7) that is read: at inference without those that contradict the image
        (`model.pose2d_tolerance`), unless the image is dropped."""
        keypoints_2d = drop_keypoints(keypoints_2d, drop_pose)
        if self.training or self.pose2d_tolerance is None or image_joints is None or drop_image is not None:
            return keypoints_2d
        return drop_contradicted(keypoints_2d, image_joints, self.pose2d_tolerance)

    @abstractmethod
    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        """Compute everything that depends only on the image (or text) and the 2D pose.

        condition: (I, 3, H, 3/4 H) images, or the output of `condition`; keypoints_2d (B, 21, 7); both as in HandBatch.
        drop_image (B,) bool: image features are set to zero (the paper's unconditional mode, supplement G).
        drop_pose (B,) bool: the 2D pose is treated as not detected.
        """

    def parameter_groups(self, lr: float, lr_backbone: float | None, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: the encoder with its own learning rate; weight decay only for weights of
        linear and convolutional layers (not for biases, norms, position embeddings, queries and reference points).

        lr_backbone 0 freezes the encoder: no gradient is computed for it.
        """
        if lr_backbone == 0 and self.encoder is not None:
            self.encoder.requires_grad_(False)
        kernels = {id(m.weight) for m in self.modules() if isinstance(m, _WITH_WEIGHT_DECAY)}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = lr_backbone if lr_backbone is not None and name.startswith("encoder.") else lr
                decay = weight_decay if id(parameter) in kernels else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        # One group per setting: the engine reduces and gathers each group separately.
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()
        ]
