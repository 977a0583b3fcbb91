"""PCK of 2D keypoints, HaMeR's `EvaluatorPCK`: the fraction of keypoints within a part of the hand's size.

A keypoint counts where its confidence is above 0.5, and is correct if its distance is at most (`<=`) threshold x size.
PCK is taken per joint over all samples, then averaged over joints. A joint that is never annotated is left out of
the average (HaMeR's program divides 0 by 0 there).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.metrics.accumulate import Addable, Means, divide, mean_of_known
from maskhand.metrics.alignment import distances

PCK_THRESHOLDS = (0.05, 0.10, 0.15)
MIN_CONFIDENCE = 0.5


@dataclass(frozen=True)
class CorrectKeypoints(Addable):
    """Counts of correct keypoints over any number of samples."""

    annotated: Array
    """(J,) int64 samples in which the joint is annotated."""
    correct: Array
    """(T, J) int64 of them within each threshold."""
    error_px: Means
    """(J,) end-point error; predictions that are NaN have none."""

    @classmethod
    def of(
        cls,
        points_px: Array,
        target_px: Array,
        confidence: Array,
        size_px: Array,
        thresholds: tuple[float, ...] = PCK_THRESHOLDS,
    ) -> CorrectKeypoints:
        """points_px, target_px (N, J, 2); confidence (N, J); size_px (N,). A prediction that is NaN is incorrect."""
        seen = confidence > MIN_CONFIDENCE
        distance = distances(points_px.astype(np.float64), target_px.astype(np.float64))
        within = [(distance <= size_px[:, None] * threshold) & seen for threshold in thresholds]
        error_px = Means.of(np.where(seen, distance, np.nan))
        return cls(seen.sum(0), np.stack([w.sum(0) for w in within]), error_px)

    @property
    def pck_by_joint(self) -> Array:
        """(T, J) PCK of each joint, NaN for a joint that was never annotated."""
        return divide(self.correct, self.annotated)

    @property
    def pck(self) -> tuple[float, ...]:
        """One number per threshold: the mean over annotated joints; NaN without any."""
        return tuple(mean_of_known(row) for row in self.pck_by_joint)
