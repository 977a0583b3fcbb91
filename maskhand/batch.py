"""The inputs and outputs of the models: batched torch records, with shape and frame beside each field.

Crop coordinates: the square crop of side `crop_px` around the hand, divided by its side, minus one half, so that both
axes run over -0.5..0.5 (HaMeR's convention). The network sees its central 3:4 columns (256 x 192 of 256 x 256).
Left hands are mirrored when a batch is made, so every field below describes a right hand.

Axes of the crop are those of the camera, turned about the optical axis as the crop is turned in its image: in training
by the augmentation, and with `data.upright` always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of R, G, B in 0..1, as pretrained encoders expect them."""

POSE_CHANNELS = 7
"""Numbers per joint in `HandBatch.keypoints_2d`."""


class _Movable:
    """A dataclass of tensors that can be moved and sliced."""

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def __getitem__(self, index: slice | Tensor) -> Self:
        return self._map(lambda t: t[index])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of all, in order."""

        def joined(values: list) -> _Movable | Tensor:
            first = values[0]
            return type(first).join(values) if isinstance(first, _Movable) else torch.cat(values)

        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: joined([getattr(part, name) for part in parts]) for name in names})

    def _map(self, fn) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: v._map(fn) if isinstance(v, _Movable) else fn(v) for k, v in values.items()})


@dataclass(frozen=True)
class HandBatch(_Movable):
    """A batch of B hands, of which the first I have an image: all but those of `data.posed_hands`.

    Missing labels are zeros with a zero flag beside them.
    """

    pixels: Tensor
    """(I, H, W, 4) uint8, RGB and 255 where the image covers the crop, 0 in the border around it; W = 3/4 H, or H."""
    color_gain: Tensor
    """(I, 3) float32, factor on R, G, B before they are clipped at white; 1 outside of training."""
    keypoints_2d: Tensor
    """(B, 21, 7) float32, 2D pose that the network reads: x, y in crop coordinates, confidence; then z, depth behind
    the wrist in crop sides, and world landmarks x, y, z relative to the wrist in meters, axes of the crop. Zeros where
    a joint is not detected; the last four also where the source of the pose sees two dimensions only."""
    joints_2d: Tensor
    """(B, 21, 2) float32, annotated 2D joints in crop coordinates."""
    joints_2d_conf: Tensor
    """(B, 21) float32; 0 = not annotated."""
    joints_3d_m: Tensor
    """(B, 21, 3) float32, annotated joints relative to the wrist, axes of the crop, meters."""
    joints_3d_valid: Tensor
    """(B, 21) float32 in {0, 1}."""
    rotmats: Tensor
    """(B, 16, 3, 3) float32, MANO rotations, global orientation first, axes of the crop."""
    betas: Tensor
    """(B, 10) float32."""
    has_mano: Tensor
    """(B,) float32 in {0, 1}."""
    crop_from_image: Tensor
    """(B, 2, 3) float64, affine: pixels of the (mirrored, if left) source image -> pixels of the square crop."""
    is_left: Tensor
    """(B,) bool: the source hand was a left hand."""
    image_size_px: Tensor
    """(B, 2) int64, width and height of the source image."""
    index: Tensor
    """(B,) int64, position of the sample in its evaluation set; -1 marks training samples."""
    text_ids: Tensor
    """(B, W) int64, the caption as ids of the recipe's text encoder, zeros after its end; W = 0 without captions."""

    @property
    def image(self) -> Tensor:
        """(I, 3, H, W) float32, ImageNet-normalized RGB: the input of networks, computed on the device of the batch.

        Batches carry bytes, which are an eighth of the memory traffic of writing and copying floats.
        """
        return normalize(self.pixels, self.color_gain)

    def followed_by(self, other: HandBatch) -> HandBatch:
        """The hands of both; those of `other` without image."""
        return HandBatch.join([self, other])


def normalize(pixels: Tensor, color_gain: Tensor) -> Tensor:
    """(B, H, W, 4) uint8 and (B, 3) gains -> (B, 3, H, W) float32, ImageNet-normalized."""
    # Bytes are permuted to planes before they become floats of four times the size.
    planes = pixels[..., :3].permute(0, 3, 1, 2).contiguous().float()
    planes.mul_(color_gain[:, :, None, None]).clamp_(max=255)
    for plane, mean, std in zip(planes.unbind(1), IMAGENET_MEAN, IMAGENET_STD, strict=True):
        plane.sub_(255 * mean).div_(255 * std)  # numbers, not tensors: no copy of constants to a GPU
    return planes


@dataclass(frozen=True)
class PoseTokens(_Movable):
    """B decoded token sequences."""

    ids: Tensor
    """(B, L) int64 in 0..codebook_size-1."""
    confidence: Tensor
    """(B, L) float32, probability of the chosen code when the token was fixed."""


@dataclass(frozen=True)
class HandPrediction(_Movable):
    """B predicted right hands (mirror back with `evaluation` or `predict` for left ones).

    Networks predict in the axes of the crop; `placement.in_image_axes` turns hands to those of the image.
    """

    rotmats: Tensor
    """(B, 16, 3, 3) MANO rotations, global orientation first."""
    betas: Tensor
    """(B, 10)."""
    camera: Tensor
    """(B, 3) HaMeR's crop camera: scale s, tx, ty (see hand.camera), always in the axes of the crop."""
    vertices_m: Tensor
    """(B, 778, 3) model vertices before translation, meters."""
    joints_m: Tensor
    """(B, 21, 3) joints before translation, OpenPose order."""
    joints_2d: Tensor
    """(B, 21, 2) projected joints in crop coordinates."""
    tokens: PoseTokens
    token_confidence_of_joints: Tensor
    """(B, 16) mean confidence of the tokens, for each MANO joint weighted by their influence on it."""
    log_probability: Tensor
    """(B,) mean log confidence over tokens."""
    score: Tensor
    """(B,) score that ranks hypotheses: minus the PA-MPJPE, millimeters, to the mean of the hypotheses of its image
    (`models/consensus.py`); 0 for a single hand."""

    @property
    def is_finite(self) -> Tensor:
        """(B,) bool: every number of a hand and its camera is finite."""
        parts = (self.vertices_m.flatten(1), self.joints_m.flatten(1), self.camera)
        return torch.stack([part.isfinite().all(1) for part in parts]).all(0)
