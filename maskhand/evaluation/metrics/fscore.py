"""F-scores of meshes: which share of points has a neighbour on the other mesh closer than a threshold, both ways.

FreiHAND's and HO-3D's `calculate_fscore`: strict `<`, harmonic mean of both shares, 0 where both are 0.

All 778 x 778 squared distances of a sample come from one float32 matrix product, a strip of rows at a time so that it
stays in the cache. Points so near a threshold that float32 cannot decide are measured again in float64, difference by
difference; the result is exact. This is several times faster than a k-d tree or a table in float64
(benchmarks/score_freihand.py).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

F_THRESHOLDS_M = (0.005, 0.015)

_STRIP = 195
"""Rows of the distance table at a time: 4 x 195 rows of 778 float32 fit in the second-level cache."""
_ROUNDING = 26 * 2.0**-24
"""Bound of a squared distance's error in float32 (input, products, sums), times the square of the largest norm."""
_FAR = 1.1
"""Points further from the target's box than this many thresholds are pulled in to there: they stay too far to count."""


def f_scores(points: Array, target: Array, thresholds: tuple[float, ...] = F_THRESHOLDS_M) -> Array:
    """(N, P, 3) and (N, Q, 3) -> (N, T) F-scores, 0 to 1; thresholds in the unit of the points."""
    matched, found = counts_within(points, target, thresholds)
    if not points.shape[1] or not target.shape[1]:
        return np.zeros(matched.shape)
    precision, recall = matched / points.shape[1], found / target.shape[1]
    total = precision + recall
    return np.divide(2 * recall * precision, total, out=np.zeros_like(total), where=total > 0)


def counts_within(points: Array, target: Array, thresholds: tuple[float, ...]) -> tuple[Array, Array]:
    """How many points have a target closer than each threshold, and how many targets a point: (N, T) int64 each."""
    limits = np.asarray(thresholds, np.float64)
    count = len(points)
    near = np.zeros((2, count, len(limits)), np.int64)
    if not count or not points.shape[1] or not target.shape[1]:
        return near[0], near[1]
    reach = _FAR * limits.max()
    low, high = target.min(1, keepdims=True) - reach, target.max(1, keepdims=True) + reach
    meets = ((points.max(1) >= low[:, 0]) & (points.min(1) <= high[:, 0])).all(-1).nonzero()[0]
    if not len(meets):
        return near[0], near[1]
    points, target, low, high = points[meets], target[meets], low[meets], high[meets]
    squared = _nearest_squared(np.clip(points, low, high), target, (low + high) / 2)
    error = _ROUNDING * ((high - low) ** 2).sum(-1) / 4
    for side, (own, other) in enumerate(((points, target), (target, points))):
        for t, limit in enumerate(limits):
            certain = squared[side] < limit**2 - error
            unsure = (squared[side] < limit**2 + error) & ~certain
            near[side, meets, t] = certain.sum(1)
            sample, row = unsure.nonzero()
            np.add.at(near[side, :, t], meets[sample], _closer(own, other, sample, row, limit))
    return near[0], near[1]


def _nearest_squared(points: Array, target: Array, centre: Array) -> tuple[Array, Array]:
    """Squared distance of each point to its nearest target (N, P), and of each target (N, Q), in float32."""
    a, b = points - centre, target - centre
    one, two = (np.einsum("npi,npi->np", x, x)[..., None] for x in (a, b))
    left = np.concatenate([a, one, np.ones_like(one)], axis=-1, dtype=np.float32)
    right = np.concatenate([-2 * b, np.ones_like(two), two], axis=-1, dtype=np.float32).transpose(0, 2, 1).copy()
    size, width = left.shape[1], right.shape[2]
    table = np.empty((_STRIP, width), np.float32)
    by_row, by_column = np.empty(left.shape[:2], np.float32), np.full((len(left), width), np.inf, np.float32)
    for k in range(len(left)):
        for start in range(0, size, _STRIP):
            rows = slice(start, min(start + _STRIP, size))
            strip = np.matmul(left[k, rows], right[k], out=table[: rows.stop - start])
            np.minimum.reduce(strip, axis=1, out=by_row[k, rows])
            np.minimum(by_column[k], np.minimum.reduce(strip, axis=0), out=by_column[k])
    return by_row, by_column


def _closer(own: Array, other: Array, sample: Array, row: Array, limit: float, at_once: int = 256) -> Array:
    """Is the nearest other point of own[sample, row] closer than the limit? Exactly; (K,) bool."""
    closer = np.zeros(len(sample), bool)
    for start in range(0, len(sample), at_once):
        part = slice(start, start + at_once)
        difference = own[sample[part], row[part], None] - other[sample[part]]
        closer[part] = np.sqrt((difference**2).sum(-1)).min(1) < limit
    return closer
