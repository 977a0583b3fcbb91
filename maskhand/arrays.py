"""Types of numpy arrays. Shape, unit and frame stand beside each field and argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray
"""Of any type."""
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]
