"""How much of a hand was observed: what nobody saw, the prior made up, and no residual tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.conventions import NUM_JOINTS

_FINGERS = np.arange(1, NUM_JOINTS).reshape(5, 4)
"""(5, 4) joints of each finger in OpenPose's order."""
JOINTS_OF_FINGER = 2
"""So many joints of a finger show how it bends; the coupling of its joints and the prior do the rest."""
SURE = 0.2
"""A joint of less confidence was not seen: of hands whose detections are below it on average, all were wrong."""


@dataclass(frozen=True)
class Evidence:
    """What a hand was fitted to."""

    joints: int
    """Joints that were seen, 0 to 21."""
    fingers: int
    """Fingers of which at least `JOINTS_OF_FINGER` joints were seen, 0 to 5."""

    @classmethod
    def of(cls, weight: NDArray[np.float64]) -> Evidence:
        """From (21,) confidences 0 to 1, OpenPose order."""
        seen = weight >= SURE
        return cls(int(seen.sum()), int((seen[_FINGERS].sum(1) >= JOINTS_OF_FINGER).sum()))
