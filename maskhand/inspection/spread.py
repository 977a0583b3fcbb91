"""How values are spread, in memory that does not grow with their number: quantiles, moments, rotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64
from maskhand.conventions import NUM_MANO_JOINTS


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of `count` numbers; every field is None where there is none."""

    count: int
    min: float | None = None
    p5: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    p95: float | None = None
    max: float | None = None


class Histogram:
    """Quantiles of a stream. Numbers below `low` and above `high` count as those, but for `min` and `max`.

    Bins are equally wide, or with `log` equally wide in the logarithm: a quantile is off by half a bin at most, and the
    order of the numbers does not matter.
    """

    def __init__(self, low: float, high: float, bins: int = 4000, log: bool = False) -> None:
        self._edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
        self._counts = np.zeros(bins, np.int64)
        self._min, self._max = np.inf, -np.inf

    def add(self, values: ArrayLike) -> None:
        """Numbers of any shape; those that are not finite do not count."""
        numbers = np.asarray(values, np.float64).ravel()
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return
        self._min, self._max = min(self._min, float(numbers.min())), max(self._max, float(numbers.max()))
        clipped = np.clip(numbers, self._edges[0], self._edges[-1])
        bins = np.minimum(np.searchsorted(self._edges, clipped, side="right") - 1, len(self._counts) - 1)
        self._counts += np.bincount(bins, minlength=len(self._counts))

    def quantiles(self) -> Quantiles:
        count = int(self._counts.sum())
        if count == 0:
            return Quantiles(0)
        # numpy's definition: quantile q stands at place q (count - 1) of the sorted numbers.
        places = np.array([0.05, 0.25, 0.5, 0.75, 0.95]) * (count - 1)
        bins = np.searchsorted(np.cumsum(self._counts), places, side="right")
        middles = np.clip((self._edges[bins] + self._edges[bins + 1]) / 2, self._min, self._max)
        p5, p25, p50, p75, p95 = (float(v) for v in middles)
        return Quantiles(count, self._min, p5, p25, p50, p75, p95, self._max)


class Moments:
    """Mean and standard deviation of a stream of vectors."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._mean, self._squares = np.zeros(size), np.zeros(size)

    def add(self, rows: Array64) -> None:
        """(N, size); merged by Chan's formula, which does not cancel."""
        if not len(rows):
            return
        mean, total = rows.mean(0), self.count + len(rows)
        apart = mean - self._mean
        self._squares += ((rows - mean) ** 2).sum(0) + apart**2 * self.count * len(rows) / total
        self._mean += apart * len(rows) / total
        self.count = total

    def mean(self) -> list[float]:
        return [float(v) for v in self._mean] if self.count else []

    def std(self) -> list[float]:
        return [float(v) for v in np.sqrt(self._squares / self.count)] if self.count else []


class RotationSpread:
    """Spread of the rotations of MANO's 16 joints about their mean, in one pass.

    The mean is the rotation nearest to the mean matrix. The spread is the angle whose cosine is the mean cosine of the
    angles to it: for small angles their root mean square. One pass is enough, since the trace is linear:
    mean cos = (trace(mean rotation^T mean matrix) - 1) / 2.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = np.zeros((NUM_MANO_JOINTS, 3, 3))

    def add(self, pose_aa: Array64) -> None:
        """(N, 16, 3) axis-angle, radians."""
        matrices = Rotation.from_rotvec(np.asarray(pose_aa, np.float64).reshape(-1, 3)).as_matrix()
        self._sum += matrices.reshape(-1, NUM_MANO_JOINTS, 3, 3).sum(0)
        self.count += len(pose_aa)

    def degrees(self) -> list[float]:
        """16 angles, MANO order; empty where nothing was added."""
        if not self.count:
            return []
        mean = self._sum / self.count
        u, _, vt = np.linalg.svd(mean)
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        cosine = (np.einsum("jik,jik->j", u @ vt, mean) - 1) / 2
        return [float(v) for v in np.degrees(np.arccos(np.clip(cosine, -1, 1)))]
