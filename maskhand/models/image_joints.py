"""Joints predicted by the encoder: a linear readout of its coarsest map, supervised by 2D and 3D joints.

They are evidence that does not depend on the detector's 2D pose and its errors, and the only one for a hand without 2D
pose: they are part of the input of the 2D pose tokens, and reference points of the deformable attention. The hand
landmark network has such a readout already (keypoints and world landmarks are linear in its pooled map), and a
correction of it is trained. Other encoders start with all joints in the middle of the crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.conventions import NUM_JOINTS

CHANNELS = 5
"""x, y in crop coordinates; x, y, z relative to the wrist in meters, axes of the crop."""
INPUT_SCALE = (4.0, 4.0, 20.0, 20.0, 20.0)
"""Factors that scale them to about unit variance."""
_SCALE = (0.02, 0.02, 0.004, 0.004, 0.004)
"""Scale of the readout: with a thousand channels, an optimizer step could otherwise move a joint by the whole crop."""


class ImageJointReadout(nn.Module):
    """Coarsest map (B, C, h, w) and the output of the encoder's published readout, if any -> (B, 21, 5)."""

    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.readout = nn.Linear(channels, NUM_JOINTS * CHANNELS)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)
        with torch.device("cpu"):  # a constant, see `model_from_weights`
            self.register_buffer("scale", torch.tensor(_SCALE), persistent=False)

    def forward(self, coarsest: Tensor, published: Tensor | None) -> Tensor:
        change = self.readout(self.norm(coarsest.mean((2, 3)))).unflatten(1, (NUM_JOINTS, CHANNELS)) * self.scale
        return change if published is None else published + change
