"""Primitives with which skin is painted: soft lines and steps, curves through points, smooth noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32

CURVE_REACH_M = 0.015


def line(distance: Array32, width: float) -> Array32:
    """1 on the line, falling off over `width`, both in the same unit."""
    return np.exp(-((distance / width) ** 2)).astype(np.float32)


def smooth_step(x: Array32, low: float, high: float) -> Array32:
    """0 up to `low`, 1 from `high` on, without a kink between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def spline(points: NDArray[np.float64], steps: int = 10) -> NDArray[np.float64]:
    """Catmull-Rom through (P, 2) points."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*pieces, points[-1:]])


def distance_to_curve(p: Array32, curve: NDArray[np.float64]) -> Array32:
    """(T,) distance of (T, 2) points from a polyline (P, 2); infinite where it is too far to matter."""
    near = np.flatnonzero(((p > curve.min(0) - CURVE_REACH_M) & (p < curve.max(0) + CURVE_REACH_M)).all(1))
    best = np.full(len(near), np.inf, np.float32)
    for a, b in pairwise(curve.astype(np.float32)):
        along = b - a
        t = np.clip(((p[near] - a) @ along) / (along @ along + 1e-12), 0, 1)
        gap = p[near] - a - t[:, None] * along
        np.minimum(best, (gap**2).sum(1), out=best)
    distance = np.full(len(p), np.inf, np.float32)
    distance[near] = np.sqrt(best)
    return distance


def value_noise(p: Array32, rng: np.random.Generator) -> Array32:
    """(T,) smooth 3D value noise of unit cell size, zero mean, unit deviation."""
    size = 17
    table = rng.standard_normal((size, size, size)).astype(np.float32)
    cell = np.floor(p).astype(np.int64)
    t = (p - cell).astype(np.float32)
    t = t * t * (3 - 2 * t)
    out = np.zeros(len(p), np.float32)
    for corner in range(8):
        offset = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        share = np.where(offset, t, 1 - t).prod(1)
        where = (cell + offset) % size
        out += share * table[where[:, 0], where[:, 1], where[:, 2]]
    return (out - out.mean()) / out.std()
