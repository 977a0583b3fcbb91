"""How much of a hand was observed. Unobserved parts come from the prior alone, and no residual shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.conventions import NUM_JOINTS

_FINGERS = np.arange(1, NUM_JOINTS).reshape(5, 4)
"""(5, 4) joints of each finger in OpenPose's order."""
JOINTS_OF_FINGER = 2
"""Joints of a finger that suffice to show its bend, with the coupling of its joints and the prior."""
MIN_SEEN_CONFIDENCE = 0.2
"""A joint with less confidence counts as not seen: hands whose mean confidence was lower were all wrong."""


@dataclass(frozen=True)
class Evidence:
    """How many joints and fingers a hand was fitted to."""

    joints: int
    """Joints that were seen, 0 to 21."""
    fingers: int
    """Fingers of which at least `JOINTS_OF_FINGER` joints were seen, 0 to 5."""

    @classmethod
    def of(cls, weight: NDArray[np.float64]) -> Evidence:
        """From (21,) confidences 0 to 1, OpenPose order."""
        seen = weight >= MIN_SEEN_CONFIDENCE
        return cls(int(seen.sum()), int((seen[_FINGERS].sum(1) >= JOINTS_OF_FINGER).sum()))
