"""Unit quaternions (x, y, z, w) as tuples of plain floats, for one rotation at a time.

The results are those of scipy's Rotation, which spends a tenth of a millisecond per call on an array of one rotation:
as much as reading the hand's image takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

Quaternion = tuple[float, float, float, float]


def from_axis_angle(vector: Sequence[float]) -> Quaternion:
    """The quaternion of an axis-angle (3,), radians."""
    x, y, z = vector
    angle = math.sqrt(x * x + y * y + z * z)
    # sin(a / 2) / a, by its series where the quotient loses its digits.
    scale = math.sin(angle / 2) / angle if angle > 1e-3 else 0.5 - angle * angle / 48
    return x * scale, y * scale, z * scale, math.cos(angle / 2)


def to_axis_angle(q: Quaternion) -> tuple[float, float, float]:
    """The axis-angle (3,), radians, of length 0 to pi."""
    x, y, z, w = q if q[3] >= 0 else (-q[0], -q[1], -q[2], -q[3])
    sine = math.sqrt(x * x + y * y + z * z)
    angle = 2 * math.atan2(sine, w)
    scale = angle / sine if sine > 1e-4 else 2 + angle * angle / 12
    return x * scale, y * scale, z * scale


def from_matrix(matrix: np.ndarray) -> Quaternion:
    """The quaternion of the rotation nearest to a (3, 3) matrix. A dataset has few cameras; each is converted once."""
    return _from_matrix(np.asarray(matrix, np.float64).tobytes())


@lru_cache(maxsize=4096)
def _from_matrix(numbers: bytes) -> Quaternion:
    x, y, z, w = Rotation.from_matrix(np.frombuffer(numbers).reshape(3, 3)).as_quat().tolist()
    return x, y, z, w


def multiply(second: Quaternion, first: Quaternion) -> Quaternion:
    """The product: rotation `first`, then rotation `second`."""
    a, b, c, d = second
    x, y, z, w = first
    return (
        d * x + a * w + b * z - c * y,
        d * y - a * z + b * w + c * x,
        d * z + a * y - b * x + c * w,
        d * w - a * x - b * y - c * z,
    )


def rotate(q: Quaternion, point: Sequence[float]) -> np.ndarray:
    """The rotated point, (3,) float64."""
    a, b, c, d = q
    x, y, z = point
    # p + 2 d (q x p) + 2 q x (q x p)
    u, v, w = 2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)
    return np.array([x + d * u + b * w - c * v, y + d * v + c * u - a * w, z + d * w + a * v - b * u])
