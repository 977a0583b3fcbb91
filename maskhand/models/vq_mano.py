"""VQ-MANO, the pose tokenizer: sixteen joint rotations <-> a sequence of discrete tokens (section 3.1, supplement B).

A 1D convolutional autoencoder over the sequence of MANO's joints: upsampled to twice the number of tokens, halved once
by a strided convolution, quantized, and decoded to sixteen joints. The sequence is in MANO's order (wrist, index,
middle, little, ring, thumb), so each token represents a neighborhood of joints, measured in `models/influence.py`.
The layout follows TokenHMR's `vanilla_pose_vqvae.py`; for what the paper leaves open see
docs/method.md#evidence-tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskhand.config import TokenizerConfig
from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.rotations import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_rot6d, rot6d_to_matrix
from maskhand.models.influence import initial_influence
from maskhand.models.quantizer import Quantizer


@dataclass(frozen=True)
class VQManoOutput:
    """The output of a training forward pass of the tokenizer."""

    rotmats: Tensor
    """(B, 16, 3, 3) the reconstruction."""
    pose: Tensor
    """(B, 16, 6 or 3) the decoder output before conversion to matrices: 6D, or axis-angle."""
    commitment: Tensor
    """() commitment loss of the encoder."""
    ids: Tensor
    """(B, L) int64."""
    perplexity: Tensor
    """() effective number of codes in use, over all ranks."""
    dead_share: Tensor
    """() fraction of unused codes."""


class VQMano(nn.Module):
    """The vector-quantized autoencoder of hand poses."""

    influence: Tensor
    """(L, 16) influence of each token on the joints (`influence.token_influence`), measured at export."""

    def __init__(self, cfg: TokenizerConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_tokens = cfg.num_tokens
        self.codebook_size = cfg.codebook_size
        channels = 6 if cfg.rot_repr == "6d" else 3
        self.encoder = _encoder(cfg, channels)
        self.quantizer = Quantizer(cfg.codebook_size, cfg.code_dim, cfg.ema_decay, cfg.reset_every, cfg.reset_below)
        self.decoder = _decoder(cfg, channels)
        self.register_buffer("influence", initial_influence(cfg.num_tokens))
        self._frozen = False

    @property
    def codebook(self) -> Tensor:
        """(V, C) fp32 code vectors."""
        return self.quantizer.codebook

    def forward(self, rotmats: Tensor) -> VQManoOutput:
        """rotmats (B, 16, 3, 3). In training mode the codebook is updated, and all ranks must call this together."""
        quantized = self.quantizer(self._embed(rotmats))
        pose = self._decode(quantized.vectors)
        return VQManoOutput(
            rotmats=self._to_matrix(pose),
            pose=pose,
            commitment=quantized.commitment,
            ids=quantized.ids,
            perplexity=quantized.perplexity,
            dead_share=quantized.dead_share,
        )

    @torch.no_grad()
    def encode(self, rotmats: Tensor) -> Tensor:
        """(B, 16, 3, 3) -> token ids (B, L) int64."""
        return self.quantizer.nearest(self._embed(rotmats))

    def decode_codes(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> (B, 16, 3, 3)."""
        return self.decode_soft(self.codebook[ids])

    def decode_soft(self, z: Tensor) -> Tensor:
        """Code vectors, or mixtures of them, (B, L, C) -> (B, 16, 3, 3); differentiable in z."""
        return self._to_matrix(self._decode(z))

    def freeze(self) -> Self:
        """Freeze permanently: no gradients, no codebook updates, `train()` is ignored."""
        self._frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self._frozen)

    def _embed(self, rotmats: Tensor) -> Tensor:
        pose = matrix_to_rot6d(rotmats) if self.cfg.rot_repr == "6d" else matrix_to_axis_angle(rotmats)
        with full_precision(pose.device):
            return self.encoder(pose.transpose(1, 2)).transpose(1, 2)

    def _decode(self, z: Tensor) -> Tensor:
        with full_precision(z.device):
            return self.decoder(z.transpose(1, 2)).transpose(1, 2)

    def _to_matrix(self, pose: Tensor) -> Tensor:
        return rot6d_to_matrix(pose) if self.cfg.rot_repr == "6d" else axis_angle_to_matrix(pose)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """A context without autocast and without TF32 in convolutions, a GPU's default: with its ten bits of mantissa, a
    pose gets other tokens than on the CPU. Gradients are computed outside of it and may use TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _Resize(nn.Module):
    """Resizes (B, C, L) to a length: nearest-neighbor upsampling, or average pooling."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        if self.length >= x.shape[-1]:
            return F.interpolate(x, size=self.length, mode="nearest")
        return F.adaptive_avg_pool1d(x, self.length)


class _ResBlock(nn.Module):
    """ReLU, dilated k3 convolution, ReLU, 1x1 convolution, added to the input (T2M-GPT's Resnet1D block)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.dilated(F.relu(x))))


def _resnet(cfg: TokenizerConfig) -> list[nn.Module]:
    """Residual blocks, the largest dilation first: global context before details."""
    return [_ResBlock(cfg.width, cfg.dilation_growth**k) for k in reversed(range(cfg.depth))]


def _encoder(cfg: TokenizerConfig, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(channels, cfg.width, 3, padding=1), nn.ReLU()]
    for length in _doublings(NUM_MANO_JOINTS, 2 * cfg.num_tokens):
        layers += [_Resize(length), nn.Conv1d(cfg.width, cfg.width, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv1d(cfg.width, cfg.width, 4, stride=2, padding=1), *_resnet(cfg)]
    layers += [nn.Conv1d(cfg.width, cfg.code_dim, 3, padding=1)]
    return nn.Sequential(*layers)


def _decoder(cfg: TokenizerConfig, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(cfg.code_dim, cfg.width, 3, padding=1), nn.ReLU()]
    for length in reversed([NUM_MANO_JOINTS, *_doublings(NUM_MANO_JOINTS, cfg.num_tokens)][:-1]):
        layers += [_Resize(length), nn.Conv1d(cfg.width, cfg.width, 3, padding=1), nn.ReLU()]
    layers += [*_resnet(cfg), nn.Conv1d(cfg.width, cfg.width, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv1d(cfg.width, channels, 3, padding=1)]
    return nn.Sequential(*layers)


def _doublings(start: int, end: int) -> list[int]:
    """Lengths from `start` (excluded) to `end`: doubled while below `end`, then `end` itself.

    >>> _doublings(16, 32), _doublings(16, 192), _doublings(16, 16)
    ([32], [32, 64, 128, 192], [])
    """
    lengths = []
    while start * 2 < end:
        start *= 2
        lengths.append(start)
    return [*lengths, end] if start != end else lengths
