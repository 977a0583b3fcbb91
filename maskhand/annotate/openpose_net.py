"""OpenPose's hand network in torch: a convolutional pose machine on a VGG-19 trunk (Simon et al., CVPR 2017).

Layers have the names of the published Caffe model (`conv1_1` ... `Mconv7_stage6`), so that weights converted from it
load by name. Input: image (N, 3, H, W); output: 22 heat maps (N, 22, H/8, W/8), the 21 keypoints and the background.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskhand.errors import MaskhandError
from maskhand.models.weight_files import WeightFileError, load_weights

HEAT_MAPS = 22
FEATURES = 128
STAGES = range(2, 7)

TRUNK = (
    ("conv1_1", 3, 64), ("conv1_2", 64, 64), "pool",
    ("conv2_1", 64, 128), ("conv2_2", 128, 128), "pool",
    ("conv3_1", 128, 256), ("conv3_2", 256, 256), ("conv3_3", 256, 256), ("conv3_4", 256, 256), "pool",
    ("conv4_1", 256, 512), ("conv4_2", 512, 512), ("conv4_3", 512, 512), ("conv4_4", 512, 512),
    ("conv5_1", 512, 512), ("conv5_2", 512, 512), ("conv5_3_CPM", 512, FEATURES),
)  # fmt: skip
"""(name, inputs, outputs) of 3x3 convolutions with ReLU, and 2x2 poolings."""


class WeightsError(MaskhandError, ValueError):
    """A weights file that does not fit the network; the message names the layer and says what to do."""


class HandPoseNet(nn.Module):
    """Trunk, an initial estimate, and five stages that each get the features and the previous estimate."""

    def __init__(self) -> None:
        super().__init__()
        for layer in TRUNK:
            if isinstance(layer, tuple):
                self._conv(*layer, size=3)
        self._conv("conv6_1_CPM", FEATURES, 512, size=1)
        self._conv("conv6_2_CPM", 512, HEAT_MAPS, size=1)
        for stage in STAGES:
            self._conv(f"Mconv1_stage{stage}", HEAT_MAPS + FEATURES, 128, size=7)
            for k in (2, 3, 4, 5):
                self._conv(f"Mconv{k}_stage{stage}", 128, 128, size=7)
            self._conv(f"Mconv6_stage{stage}", 128, 128, size=1)
            self._conv(f"Mconv7_stage{stage}", 128, HEAT_MAPS, size=1)

    def _conv(self, name: str, inputs: int, outputs: int, size: int) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, size, padding=size // 2))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) BGR / 256 - 0.5 -> (N, 22, H/8, W/8); the last map is the background."""
        features = image
        for layer in TRUNK:
            features = (
                self._relu(layer[0], features) if isinstance(layer, tuple) else functional.max_pool2d(features, 2)
            )
        heat = self.get_submodule("conv6_2_CPM")(self._relu("conv6_1_CPM", features))
        for stage in STAGES:
            x = torch.cat([heat, features], dim=1)
            for k in range(1, 7):
                x = self._relu(f"Mconv{k}_stage{stage}", x)
            heat = self.get_submodule(f"Mconv7_stage{stage}")(x)
        return heat

    def _relu(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(self.get_submodule(name)(x), inplace=True)


def load_hand_pose_net(path: str | Path) -> HandPoseNet:
    """Load converted weights (`hand_pose_model.pth` of pytorch-openpose and similar files) into a network in eval mode.

    Only the last two parts of a key are used (`conv1_1.weight`); prefixes of module containers (`model1_0.`,
    `module.`) and a wrapping `state_dict` are ignored. Nothing in the file is executed. Raises WeightsError.
    """
    try:
        stored = load_weights(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}); copy it again") from error
    except WeightFileError as error:
        raise WeightsError(f"{path}: {error}; copy it again") from error
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping):
        raise WeightsError(f"{path}: holds a {type(stored).__name__}, expected a mapping of layer names to weights")
    given = {".".join(str(key).split(".")[-2:]): value for key, value in stored.items() if isinstance(value, Tensor)}
    net = HandPoseNet()
    state = OrderedDict()
    for name, expected in net.state_dict().items():
        found = given.get(name)
        if found is None or found.shape != expected.shape:
            what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise WeightsError(
                f"{path}: {name} {what}, expected {tuple(expected.shape)}; this is not OpenPose's hand network"
            )
        state[name] = found.float()
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)
