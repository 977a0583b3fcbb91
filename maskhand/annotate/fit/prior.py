"""Pose prior of the fitter: hard joint limits, and a Gaussian over the poses within them.

The Gaussian is fitted to the named hand shapes (`hand/hand_shapes.yaml`) and widened; it uses no measured hands. Shape
coefficients are standard normal, as defined by MANO-like models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from maskhand.annotate.fit.skeleton import DOF_COLUMN, DOF_JOINT
from maskhand.arrays import Array64
from maskhand.hand.anatomy import DIP_OF_PIP, DIP_SLACK_DEG, FLEXION, LONG_FINGERS, pose_table

WIDENING_DEG = 8.0
"""Standard deviation added to every angle, since real hands deviate from the named shapes."""


@dataclass(frozen=True)
class PosePrior:
    """Over the 26 angles of `skeleton.State`, radians."""

    low: Array64
    """(26,)"""
    high: Array64
    """(26,)"""
    pip: NDArray[np.int64]
    """(4,) indices of the long fingers' PIP flexion."""
    dip: NDArray[np.int64]
    """(4,) indices of their DIP flexion, which is coupled to it."""
    mean: Array64
    """(26,)"""
    precision: Array64
    """(26, 26) inverse covariance."""
    shapes: Array64
    """(S, 26) the named shapes."""

    def bounds(self, angles: Array64) -> tuple[Array64, Array64]:
        """(B, 26) minimum and maximum angles; those of a DIP depend on its PIP."""
        low, high = (np.broadcast_to(v, angles.shape).copy() for v in (self.low, self.high))
        follow = DIP_OF_PIP * np.clip(angles[:, self.pip], self.low[self.pip], self.high[self.pip])
        slack = np.deg2rad(DIP_SLACK_DEG)
        low[:, self.dip] = np.maximum(low[:, self.dip], follow + slack[0])
        high[:, self.dip] = np.minimum(high[:, self.dip], follow + slack[1])
        return low, high

    def within_limits(self, angles: Array64) -> Array64:
        """(B, 26) the angles clipped to their limits."""
        return np.clip(angles, *self.bounds(angles))


@cache
def pose_prior() -> PosePrior:
    """The prior from `hand/hand_shapes.yaml`."""
    table = pose_table()
    low, high = np.deg2rad(table.limits_deg[DOF_JOINT, DOF_COLUMN]).T
    shapes = np.deg2rad(table.angles_deg[:, DOF_JOINT, DOF_COLUMN])
    # With a prior as wide as the range of a stiff angle, the angle would often be at its limits.
    widening = np.minimum(np.deg2rad(WIDENING_DEG), (high - low) / 4)
    covariance = np.cov(shapes.T) + np.diag(widening**2)
    place = {(int(j), int(c)): k for k, (j, c) in enumerate(zip(DOF_JOINT, DOF_COLUMN, strict=True))}
    pip, dip = (np.array([place[first + k, FLEXION] for first in LONG_FINGERS]) for k in (1, 2))
    return PosePrior(low, high, pip, dip, shapes.mean(0), np.linalg.inv(covariance), shapes)
