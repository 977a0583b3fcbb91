"""F-scores of meshes: what fraction of points has a neighbor on the other mesh closer than a threshold, both ways.

FreiHAND's and HO-3D's `calculate_fscore`: strict `<`, harmonic mean of both fractions, 0 where both are 0.

All 778 x 778 squared distances of a sample come from one float32 matrix product, a strip of rows at a time so that it
stays in the cache. Points so near a threshold that float32 cannot decide are measured again in float64, difference by
difference; the result is exact. This is several times faster than a k-d tree or a table in float64
(benchmarks/score_freihand.py).
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array

F_THRESHOLDS_M = (0.005, 0.015)

_STRIP = 195
"""Rows of the distance table at a time: 195 x 778 float32 numbers stay in the second-level cache."""
_ROUNDING = 26 * 2.0**-24
"""Bound of a squared distance's error in float32 (input, products, sums), times the square of the larger norm."""
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
    near = np.zeros((2, len(points), len(thresholds)), np.int64)
    if not len(points) or not points.shape[1] or not target.shape[1]:
        return near[0], near[1]
    # coordinate by coordinate: numpy reduces along the long axis ten times faster than across it
    own, other = (np.ascontiguousarray(x.transpose(0, 2, 1), dtype=np.float64) for x in (points, target))
    reach = _FAR * max(thresholds)
    low, high = other.min(2) - reach, other.max(2) + reach
    meets = ((own.max(2) >= low) & (own.min(2) <= high)).all(-1).nonzero()[0]
    own, other, low, high = own[meets], other[meets], low[meets, :, None], high[meets, :, None]
    center = (low + high) / 2
    left, right = np.clip(own, low, high) - center, other - center
    norms = tuple(np.einsum("nip,nip->np", x, x) for x in (left, right))
    squared = _nearest_squared(left, right, *norms)
    for side, (a, b) in enumerate(((own, other), (other, own))):
        length = np.sqrt(norms[side])
        for t, limit in enumerate(thresholds):
            # what is about as near as the limit is at most the limit further from the center than the point itself
            error = _ROUNDING * (length + limit) ** 2
            unsure = np.abs(squared[side] - limit**2) <= error
            near[side, meets, t] = ((squared[side] < limit**2) & ~unsure).sum(1)
            sample, row = unsure.nonzero()
            np.add.at(near[side, :, t], meets[sample], _closer(a, b, sample, row, limit))
    return near[0], near[1]


def _nearest_squared(left: Array, right: Array, left_norms: Array, right_norms: Array) -> tuple[Array, Array]:
    """(N, 3, P) and (N, 3, Q), with their squared norms, -> least squared distances (N, P) and (N, Q), float32."""
    one, two = np.ones_like(left_norms), np.ones_like(right_norms)
    # |a - b|^2 = a . (-2 b) + |a|^2 . 1 + 1 . |b|^2
    rows = np.concatenate([left, left_norms[:, None], one[:, None]], axis=1, dtype=np.float32)
    columns = np.concatenate([-2 * right, two[:, None], right_norms[:, None]], axis=1, dtype=np.float32)
    size, width = rows.shape[2], columns.shape[2]
    table = np.empty((_STRIP, width), np.float32)
    by_row = np.empty((len(rows), size), np.float32)
    by_column = np.full((len(rows), width), np.inf, np.float32)
    for k in range(len(rows)):
        for start in range(0, size, _STRIP):
            stop = min(start + _STRIP, size)
            strip = np.matmul(rows[k, :, start:stop].T, columns[k], out=table[: stop - start])
            np.minimum.reduce(strip, axis=1, out=by_row[k, start:stop])
            np.minimum(by_column[k], np.minimum.reduce(strip, axis=0), out=by_column[k])
    return by_row, by_column


def _closer(own: Array, other: Array, sample: Array, row: Array, limit: float, at_once: int = 128) -> Array:
    """Is the nearest point of other (N, 3, Q) closer to own[sample, :, row] than the limit? Exactly; (K,) bool."""
    closer = np.zeros(len(sample), bool)
    for start in range(0, len(sample), at_once):
        part = slice(start, start + at_once)
        x, y, z = (other[sample[part], i] - own[sample[part], i, row[part], None] for i in range(3))
        closer[part] = np.sqrt((x * x + y * y + z * z).min(1)) < limit
    return closer
