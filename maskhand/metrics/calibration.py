"""Does a confidence mean what it says, and does it sort the errors?

Three questions: is a confidence of 0.8 right in 80 % of cases (`reliability`), does leaving out the least confident
hands lower the error as fast as leaving out the worst ones (`sparsification`), and does confidence tell large errors
from small ones (`auroc_large_errors`). Only the first needs the confidence to be a probability.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import rankdata, spearmanr

from maskhand.arrays import Array
from maskhand.metrics.accumulate import divide, row_means


@dataclass(frozen=True)
class Reliability:
    """Confidences in B bins of equal width from 0 to 1."""

    count: Array
    """(B,) int64."""
    confidence: Array
    """(B,) mean confidence, NaN for an empty bin."""
    correct: Array
    """(B,) fraction of correct ones, NaN for an empty bin."""

    @property
    def expected_calibration_error(self) -> float:
        """Mean of |confidence - fraction of correct ones| over all samples, from bin means; NaN without samples."""
        if not self.count.sum():
            return float("nan")
        gap = np.where(self.count > 0, np.abs(np.nan_to_num(self.confidence) - np.nan_to_num(self.correct)), 0.0)
        return float((gap * self.count).sum() / self.count.sum())


def reliability(confidence: Array, correct: Array, bins: int = 10) -> Reliability:
    """confidence (N,) from 0 to 1, correct (N,) bool; a confidence of 1 belongs to the last bin."""
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct.astype(np.float64)))
    return Reliability(count, *(divide(total, count) for total in sums))


@dataclass(frozen=True)
class JointConfidenceQuality:
    """What the confidence in joints is worth on N hands; NaN where there is nothing to tell apart."""

    confidence_ece: float
    """Expected calibration error of the probability to be right, ten bins."""
    confidence_auroc: float
    """Probability that a joint beyond the limit is less confident than one within it."""
    confidence_auroc_by_joint: float
    """The same of one constant per joint."""
    confidence_error_spearman: float
    """Rank correlation of expected and true errors over joints."""
    confidence_hand_spearman: float
    """The same over hands, of the means over their joints."""

    @classmethod
    def of(cls, p_right: Array, p_by_joint: Array, expected_mm: Array, error_mm: Array, limit_mm: float) -> Self:
        """All (N, 21), NaN where unknown. p_right: P(error up to `limit_mm`); p_by_joint: that of a constant."""
        known = np.isfinite(p_right) & np.isfinite(error_mm)
        p, constant, expected, error = (x[known] for x in (p_right, p_by_joint, expected_mm, error_mm))
        large = int((error > limit_mm).sum())
        decided = 0 < large < len(error)
        hands = known.any(1)
        of_hand = (np.where(known, x, np.nan)[hands] for x in (expected_mm, error_mm))
        return cls(
            reliability(np.clip(p, 0, 1), error <= limit_mm).expected_calibration_error,
            auroc_large_errors(p, error, limit_mm) if decided else float("nan"),
            auroc_large_errors(constant, error, limit_mm) if decided else float("nan"),
            _rank_correlation(expected, error),
            _rank_correlation(*(row_means(values) for values in of_hand)),
        )


def _rank_correlation(a: Array, b: Array) -> float:
    """Spearman's; NaN where one of them is constant."""
    varied = len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
    return float(spearmanr(a, b)[0]) if varied else float("nan")


@dataclass(frozen=True)
class Sparsification:
    """Mean error of what is left when the least confident hands are left out."""

    left_out: Array
    """(N,) fractions 0, 1/N, ..., (N-1)/N."""
    by_confidence: Array
    """(N,) mean error of the rest, in the errors' unit."""
    by_error: Array
    """(N,) the same when the largest errors go first: no confidence can do better."""

    @property
    def area(self) -> float:
        """Area under `by_confidence`, in the errors' unit: lower is better."""
        return float(self.by_confidence.mean())

    @property
    def excess(self) -> float:
        """Area between the two curves (AUSE): 0 for a confidence that sorts the errors perfectly."""
        return float((self.by_confidence - self.by_error).mean())


def sparsification(confidence: Array, error: Array) -> Sparsification:
    """confidence and error (N,), finite, N > 0. Equal confidences share the mean of their errors."""
    if not len(error):
        raise ValueError("a sparsification curve needs at least one sample")
    order = np.argsort(-confidence, kind="stable")
    _, group = np.unique(-confidence[order], return_inverse=True)
    tied = np.bincount(group, weights=error[order]) / np.bincount(group)
    kept = np.arange(1, len(error) + 1)
    by_confidence, by_error = (np.cumsum(values) / kept for values in (tied[group], np.sort(error)))
    return Sparsification(np.arange(len(error)) / len(error), by_confidence[::-1], by_error[::-1])


def auroc_large_errors(confidence: Array, error: Array, limit: float) -> float:
    """Probability that a hand with an error above `limit` is less confident than one below; ties count half.

    0.5 is chance, 1 perfect. NaN, with a warning, where all errors are on one side of the limit.
    """
    large = error > limit
    positive, negative = int(large.sum()), int((~large).sum())
    if not positive or not negative:
        side = "no" if not positive else "every"
        warnings.warn(f"AUROC: {side} error is above {limit:g}, so there is nothing to tell apart", stacklevel=2)
        return float("nan")
    ranks = rankdata(-confidence)
    return float((ranks[large].sum() - positive * (positive + 1) / 2) / (positive * negative))
