"""How much of a hand was observed. Unobserved parts are determined by the prior alone, which no residual shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.conventions import NUM_JOINTS

_FINGERS = np.arange(1, NUM_JOINTS).reshape(5, 4)
"""(5, 4) joints of each finger in OpenPose's order."""
JOINTS_OF_FINGER = 2
"""Number of a finger's joints that suffice to determine its bend, given the coupling of its joints and the prior."""
MIN_SEEN_CONFIDENCE = 0.2
"""A joint with less confidence counts as not seen: all hands with lower mean confidence were wrong."""


@dataclass(frozen=True)
class Evidence:
    """The number of joints and fingers to which a hand was fitted."""

    joints: int
    """Number of seen joints, 0 to 21."""
    fingers: int
    """Number of fingers with at least `JOINTS_OF_FINGER` seen joints, 0 to 5."""

    @classmethod
    def of(cls, weight: NDArray[np.float64]) -> Evidence:
        """From (21,) confidences 0 to 1, OpenPose order."""
        seen = weight >= MIN_SEEN_CONFIDENCE
        return cls(int(seen.sum()), int((seen[_FINGERS].sum(1) >= JOINTS_OF_FINGER).sum()))
