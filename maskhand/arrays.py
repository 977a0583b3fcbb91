"""Types of numpy arrays. Shape, unit and frame stand beside each field and argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray
"""Of any type."""
Array32 = NDArray[np.float32]
Array64 = NDArray[np.float64]


def times_each(rows: Array64, matrix: Array64) -> Array64:
    """(B, n) rows times (n, m), one by one -> (B, m): on some processors BLAS rounds a row by the number of rows."""
    return np.asarray((rows[:, None] @ matrix)[:, 0])
