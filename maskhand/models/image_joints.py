"""Joints that the encoder itself sees: a linear readout of its coarsest map, supervised by 2D and 3D joints.

A detector's 2D pose is wrong where the detector's own image model is. Joints read from the encoder that is trained here
are evidence of another source, and the only one for a hand without 2D pose: they are a part of the 2D pose tokens, and
reference points of the deformable attention. The hand landmark network has such a readout (keypoints and world
landmarks are linear in its pooled map); the difference from it is trained. Other encoders start from a hand whose
joints are all in the middle of the crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.conventions import NUM_JOINTS

CHANNELS = 5
"""x, y in crop coordinates; x, y, z relative to the wrist in meters, axes of the crop."""
INPUT_SCALE = (4.0, 4.0, 20.0, 20.0, 20.0)
"""Factors that make them of about unit variance."""
_SCALE = (0.02, 0.02, 0.004, 0.004, 0.004)
"""Of the readout: with a thousand channels a step of the optimizer would otherwise move a joint by the whole crop."""


class ImageJointReadout(nn.Module):
    """Coarsest map (B, C, h, w) and what the encoder's published readout says of it -> (B, 21, 5)."""

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
