"""Two predictors on the same hands: how surely is the mean of one below that of the other?"""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap

from maskhand.arrays import Array

CONFIDENCE = 0.95
RESAMPLES = 2000


def mean_interval(differences: Array, seed: int = 0) -> tuple[float, float]:
    """Percentile interval (`CONFIDENCE`) of the mean of (N,) paired differences, from `RESAMPLES` seeded resamples.

    Hands are resampled one by one: for images of few video sequences the interval is too narrow. NaN without any
    difference, or where one is not finite.
    """
    if not len(differences) or not np.isfinite(differences).all():
        return float("nan"), float("nan")
    if np.ptp(differences) == 0:  # resampling changes nothing
        return float(differences[0]), float(differences[0])
    interval = bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, batch=50, confidence_level=CONFIDENCE,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)
