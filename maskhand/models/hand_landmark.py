"""The open hand landmark network (Apache-2.0) in PyTorch: EfficientNet-lite blocks that were trained on real hands.

The published model computes 21 keypoints, their depth, world landmarks, presence and side from an upright square crop
of 224 px. Here it is an encoder that can be frozen or fine-tuned: maps at strides 4, 8, 16 and 32, and the last map of
1152 channels, whose mean the published output layers read. Weights are read from the downloaded `.tflite` file
(`models.tflite`); they are not part of this repository.

Layers: a 3x3 stem of stride 2, a depthwise-separable layer, fifteen inverted residual blocks (expansion, depthwise,
linear projection; ReLU6 after the first two; the last block has no projection) and the mean over the map. Padding is
TensorFlow's SAME: with stride 2 an even input gets its extra row below and to the right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskhand.conventions import NUM_JOINTS
from maskhand.models.tflite import Layer, TfliteError, read_layers

INPUT_PX = 224
"""Input size of the published model; other multiples of 32 work as well."""
CHANNELS = (24, 40, 112, 192)
"""Channels of the maps at strides 4, 8, 16 and 32."""
POOLED = 1152

_STEM, _SEPARABLE = 24, 16
BLOCKS = (
    # expanded channels, kernel, stride, channels (None: no projection)
    (64, 3, 2, 24),
    (144, 3, 1, 24),
    (144, 5, 2, 40),
    (240, 5, 1, 40),
    (240, 3, 2, 80),
    (480, 3, 1, 80),
    (480, 3, 1, 80),
    (480, 5, 1, 112),
    (672, 5, 1, 112),
    (672, 5, 1, 112),
    (672, 5, 2, 192),
    (1152, 5, 1, 192),
    (1152, 5, 1, 192),
    (1152, 5, 1, 192),
    (1152, 3, 1, None),
)
_HEADS = {"right": 1, "presence": 1, "keypoints": 3 * NUM_JOINTS, "world": 3 * NUM_JOINTS}
_MAP_ENDS = (1, 3, 9, 13)
"""Blocks whose outputs are the maps: the last block of each stride."""


@dataclass(frozen=True)
class LandmarkFeatures:
    """Feature maps of B crops of S x S px."""

    maps: tuple[Tensor, ...]
    """(B, 24, S/4, S/4), (B, 40, S/8, S/8), (B, 112, S/16, S/16), (B, 192, S/32, S/32)."""
    last: Tensor
    """(B, 1152, S/32, S/32); the outputs are linear in its spatial mean."""


@dataclass(frozen=True)
class LandmarkOutputs:
    """The published outputs for B crops."""

    keypoints: Tensor
    """(B, 21, 3) x, y in pixels of a crop of 224 px, origin at its top-left corner; z behind the wrist, also px."""
    world_m: Tensor
    """(B, 21, 3) meters from the center of the hand, axes of the crop."""
    presence: Tensor
    """(B,) probability that there is a hand."""
    right: Tensor
    """(B,) probability that it is a right hand."""


class HandLandmarkNet(nn.Module):
    """The network; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvSame(3, _STEM, 3, stride=2, relu6=True)
        self.separable = nn.Sequential(
            ConvSame(_STEM, _STEM, 3, groups=_STEM, relu6=True), ConvSame(_STEM, _SEPARABLE, 1)
        )
        channels, blocks = _SEPARABLE, []
        for hidden, kernel, stride, out in BLOCKS:
            blocks.append(InvertedResidual(channels, hidden, kernel, stride, out))
            channels = hidden if out is None else out
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(POOLED, size) for name, size in _HEADS.items()}  # in the file's order
        )

    def forward(self, image: Tensor) -> LandmarkFeatures:
        """image (B, 3, S, S) RGB in 0..1, S a multiple of 32."""
        x = self.separable(self.stem(image))
        maps = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _MAP_ENDS:
                maps.append(x)
        return LandmarkFeatures(tuple(maps), x)

    def outputs(self, features: LandmarkFeatures) -> LandmarkOutputs:
        pooled = features.last.mean((2, 3))
        keypoints, world_m = self.joints(features.last)
        return LandmarkOutputs(
            keypoints=keypoints,
            world_m=world_m,
            presence=self.heads["presence"](pooled)[:, 0].sigmoid(),
            right=self.heads["right"](pooled)[:, 0].sigmoid(),
        )

    def joints(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """The keypoints and world landmarks of `LandmarkOutputs`, from `LandmarkFeatures.last`."""
        pooled = last.mean((2, 3))
        keypoints, world_m = (self.heads[name](pooled).unflatten(1, (NUM_JOINTS, 3)) for name in ("keypoints", "world"))
        return keypoints, world_m

    def load_tflite(self, path: str | Path) -> None:
        """Load the published weights. Raises TfliteError when the file holds another network."""
        self.load_state_dict(dict(self._weights(path, read_layers(path))))

    def _weights(self, path: str | Path, layers: list[Layer]) -> Iterator[tuple[str, Tensor]]:
        """Names and weights; the file's layers are in the same order as this module's."""
        names = [name for name, part in self.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        if len(names) != len(layers):
            raise TfliteError(f"{path}: {len(layers)} layers, the hand landmark network has {len(names)}")
        state = self.state_dict()
        for name, layer in zip(names, layers, strict=True):
            wanted = state[f"{name}.weight"]
            weight = torch.from_numpy(layer.weight)
            if layer.kind == "conv":  # out, height, width, in
                weight = weight.permute(0, 3, 1, 2)
            elif layer.kind == "depthwise":  # 1, height, width, channels
                weight = weight.permute(3, 0, 1, 2)
            if weight.shape != wanted.shape:
                raise TfliteError(f"{path}: {name} is {tuple(weight.shape)}, expected {tuple(wanted.shape)}")
            yield f"{name}.weight", weight.contiguous()
            yield f"{name}.bias", torch.from_numpy(layer.bias)


class ConvSame(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, optionally followed by ReLU6."""

    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, relu6: bool = False
    ) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups)
        self.relu6 = relu6

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            x = F.conv2d(input, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        else:
            x = F.conv2d(F.pad(input, _same(input, kernel, stride)), self.weight, self.bias, stride, 0, 1, self.groups)
        return F.relu6(x) if self.relu6 else x


def _same(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Padding (left, right, top, bottom) for (B, C, h, w)."""
    height, width = (max(kernel - stride if n % stride == 0 else kernel - n % stride, 0) for n in x.shape[2:])
    return width // 2, width - width // 2, height // 2, height - height // 2


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; with a skip connection if input and output have the same shape."""

    def __init__(self, channels: int, hidden: int, kernel: int, stride: int, out: int | None) -> None:
        super().__init__()
        self.expand = ConvSame(channels, hidden, 1, relu6=True)
        self.depthwise = ConvSame(hidden, hidden, kernel, stride=stride, groups=hidden, relu6=True)
        self.project = nn.Identity() if out is None else ConvSame(hidden, out, 1)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y
