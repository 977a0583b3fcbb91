"""Rotations of one hand at a time as unit quaternions (x, y, z, w) of plain numbers.

A hand has one rotation to convert. Libraries for arrays of rotations spend a tenth of a millisecond on each such call,
as much as reading its image takes; their results are these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

Turn = tuple[float, float, float, float]


def turn_of_vector(vector: Sequence[float]) -> Turn:
    """Of an axis-angle (3,)."""
    x, y, z = vector
    angle = math.sqrt(x * x + y * y + z * z)
    # sin(a / 2) / a, by its series where the quotient loses its digits.
    scale = math.sin(angle / 2) / angle if angle > 1e-3 else 0.5 - angle * angle / 48
    return x * scale, y * scale, z * scale, math.cos(angle / 2)


def vector_of_turn(turn: Turn) -> tuple[float, float, float]:
    """The axis-angle of at most half a turn."""
    x, y, z, w = turn if turn[3] >= 0 else (-turn[0], -turn[1], -turn[2], -turn[3])
    sine = math.sqrt(x * x + y * y + z * z)
    angle = 2 * math.atan2(sine, w)
    scale = angle / sine if sine > 1e-4 else 2 + angle * angle / 12
    return x * scale, y * scale, z * scale


def turn_of_matrix(matrix: np.ndarray) -> Turn:
    """Of the rotation nearest to a (3, 3) matrix. A dataset has few cameras, so each is converted once."""
    return _turn_of_matrix(np.asarray(matrix, np.float64).tobytes())


@lru_cache(maxsize=4096)
def _turn_of_matrix(numbers: bytes) -> Turn:
    x, y, z, w = Rotation.from_matrix(np.frombuffer(numbers).reshape(3, 3)).as_quat().tolist()
    return x, y, z, w


def after(second: Turn, first: Turn) -> Turn:
    """The turn `first` and then `second`."""
    a, b, c, d = second
    x, y, z, w = first
    return (
        d * x + a * w + b * z - c * y,
        d * y - a * z + b * w + c * x,
        d * z + a * y - b * x + c * w,
        d * w - a * x - b * y - c * z,
    )


def turned(turn: Turn, point: Sequence[float]) -> np.ndarray:
    """(3,) float64."""
    a, b, c, d = turn
    x, y, z = point
    # p + 2 d (q x p) + 2 q x (q x p)
    u, v, w = 2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)
    return np.array([x + d * u + b * w - c * v, y + d * v + c * u - a * w, z + d * w + a * v - b * u])
