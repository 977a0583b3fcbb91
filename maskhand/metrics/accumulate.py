"""Means and areas under the curve from a stream of distances, in memory that does not grow with it.

FreiHAND's `EvalUtil`, which HO-3D and DexYCB use too: everything is computed per point (joint or vertex) over all its
samples and then averaged over points, so a point that is annotated rarely weighs as much as one annotated always.

Parts of a benchmark are added with `+`. The sums are kept in bins of fixed width, where floating-point addition is
exact, so the numbers do not depend, to the last bit, on how samples were split or ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from maskhand.arrays import Array

AUC_STEPS = 100
AUC_LIMIT_M = 0.05

# Adding and taking away such a number rounds to a multiple of 2^-24 or 2^-58: sums of 2^20 such parts are exact. The
# remainder is below 1e-17. Values beyond 10^8 still count, with the ordinary rounding of a sum.
_ROUNDERS = (1.5 * 2.0**28, 1.5 * 2.0**-6)


class Addable:
    """A dataclass of totals: adding two adds them field by field."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True)
class Means(Addable):
    """Means of P quantities over any number of samples."""

    count: Array
    """(P,) int64, samples in which the quantity is known."""
    sums: Array
    """(3, P) float64: coarse part, fine part and remainder of the sum."""

    @classmethod
    def of(cls, values: Array) -> Means:
        """values (N, P), NaN where unknown."""
        seen = ~np.isnan(values)
        known = values if seen.all() else np.where(seen, values, 0.0)
        coarse = (known + _ROUNDERS[0]) - _ROUNDERS[0]
        rest = known - coarse
        fine = (rest + _ROUNDERS[1]) - _ROUNDERS[1]
        return cls(seen.sum(0), np.stack([coarse.sum(0), fine.sum(0), (rest - fine).sum(0)]))

    @property
    def values(self) -> Array:
        """(P,), NaN for a quantity that was never known."""
        return divide(self.sums[0] + (self.sums[1] + self.sums[2]), self.count)

    @property
    def mean(self) -> float:
        """Mean over the known quantities of `values`; NaN without any."""
        return mean_of_known(self.values)


@dataclass(frozen=True)
class PointErrors:
    """Statistics of P points' distances over any number of samples; the unit is that of the distances."""

    thresholds: Array
    """(T,) float64, ascending from 0."""
    distance: Means
    """Of each point."""
    histogram: Array
    """(P, T + 1) int64: distances whose first threshold at or above them is number t; the last column is beyond all."""

    @classmethod
    def of(cls, errors: Array, limit: float = AUC_LIMIT_M, steps: int = AUC_STEPS) -> PointErrors:
        """Statistics of distances (N, P), NaN where a point is not annotated; thresholds from 0 to limit."""
        thresholds = np.linspace(0.0, limit, steps)
        points = errors.shape[1]
        bins = np.searchsorted(thresholds, errors, side="left")  # a distance equal to a threshold is within it
        bins += np.arange(points) * (steps + 1)
        counted = bins.ravel() if not np.isnan(errors).any() else bins[~np.isnan(errors)]
        histogram = np.bincount(counted, minlength=points * (steps + 1)).reshape(points, steps + 1)
        return cls(thresholds, Means.of(errors), histogram)

    def __add__(self, other: PointErrors) -> PointErrors:
        return PointErrors(self.thresholds, self.distance + other.distance, self.histogram + other.histogram)

    @property
    def count(self) -> Array:
        """(P,) samples in which the point is annotated."""
        return self.distance.count

    @property
    def means(self) -> Array:
        """(P,) mean distance of each point, NaN for a point that was never annotated."""
        return self.distance.values

    @property
    def mean(self) -> float:
        """Mean over points of `means`, points never annotated left out; NaN without any."""
        return self.distance.mean

    @property
    def pck(self) -> Array:
        """(P, T) fraction of samples with a distance of at most (`<=`) each threshold."""
        return divide(self.histogram[:, :-1].cumsum(1), self.count[:, None])

    @property
    def pck_auc_by_point(self) -> Array:
        """(P,) area under `pck` by trapezoids, divided by the range: 1 is perfect."""
        return np.asarray(np.trapezoid(self.pck, self.thresholds, axis=1) / self.thresholds[-1])

    @property
    def pck_auc(self) -> float:
        """Mean over points of `pck_auc_by_point`."""
        return mean_of_known(self.pck_auc_by_point)


def mean_of_known(values: Array) -> float:
    """The mean of what is not NaN; NaN, without a warning, where nothing is known: callers say why."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def row_means(values: Array) -> Array:
    """(N, K) -> (N,) mean of what is not NaN; NaN for a row without anything."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(1), known.sum(1))


def divide(total: Array, count: Array) -> Array:
    """total / count, NaN where count is 0."""
    empty = np.full(np.broadcast_shapes(total.shape, count.shape), np.nan)
    return np.divide(total, count, out=empty, where=count > 0)
