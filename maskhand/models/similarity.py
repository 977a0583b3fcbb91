"""Similarity transforms between sets of points, without reflection (Umeyama 1991); batched numpy."""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array


def rotate_onto(points: Array, target: Array) -> tuple[Array, Array]:
    """Rotate centered points (..., P, 3) onto centered targets (..., P, 3), which may broadcast.

    Returns the rotated points, and their inner products (...,) with the targets: the best scale of the points is that
    product divided by their `squared_size`.
    """
    u, singular, vt = np.linalg.svd(points.swapaxes(-1, -2) @ target)
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., 2] *= sign[..., None]
    singular[..., 2] *= sign
    return points @ (u @ vt), singular.sum(-1)


def squared_size(points: Array) -> Array:
    """(..., P, 3) centered points -> (...,) sum of squares; at least 1e-18, as dividing by it must not give NaN."""
    return np.asarray(np.maximum(np.square(points).sum((-1, -2)), 1e-18))
