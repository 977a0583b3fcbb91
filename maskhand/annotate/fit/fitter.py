"""MANO fitter for 3D joints, 2D keypoints, or both: start, solve, estimate the noise, solve again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.annotate.fit.observed import Noise, Observed, project
from maskhand.annotate.fit.prior import pose_prior
from maskhand.annotate.fit.skeleton import Skeleton, State
from maskhand.annotate.fit.solve import solve
from maskhand.annotate.fit.start import Starts
from maskhand.arrays import Array64
from maskhand.hand.model_file import HandModel

JOINT_NOISE_M = (0.0003, 0.004, 0.02)
"""Minimum, initial, maximum standard deviation of a joint's coordinate."""
KEYPOINT_NOISE = (0.01, 0.015, 0.06)
"""The same for a keypoint's coordinate, in sides of the hand's box. Manually annotated keypoints are no more accurate
than the minimum; with a smaller one the shape would be fitted to perspective effects."""
CHUNK = 128
"""Number of hands solved together: their derivatives fit into the processor's cache."""
FIRST_STEPS = 12
REFINEMENTS, STEPS = 3, 20


@dataclass(frozen=True)
class Attempt:
    """Fits to 2D keypoints from many viewing directions, of which the best is kept."""

    starts: int
    """Number of viewing directions, the next most likely ones after those of earlier attempts."""
    steps: int
    above: float
    """Only for hands whose mean distance still exceeds this fraction of the box: few hands need the later attempts."""


ATTEMPTS_2D = (Attempt(16, 6, 0.0), Attempt(32, 6, 0.016), Attempt(48, 12, 0.018))
"""Many short attempts succeed more often than few long ones. For two hands in a thousand the right direction is ranked
so low that only the last attempt tries it."""


@dataclass(frozen=True)
class Fits:
    """B fitted right hands."""

    pose_aa: Array64
    """(B, 16, 3) absolute axis-angle, radians, camera axes."""
    betas: Array64
    """(B, 10)."""
    transl_cam_m: Array64
    """(B, 3) translation for `ManoLayer`."""
    angles_deg: Array64
    """(B, 26) anatomical angles, within the joint limits."""
    residual_mm: Array64
    """(B,) mean distance to the observed 3D joints; NaN if there are none."""
    residual_px: Array64
    """(B,) mean distance to the observed keypoints; NaN if there are none."""
    hand_px: Array64
    """(B,) longer side of the box around the observed keypoints."""


class ManoFitter:
    """Fits a hand model; deterministic: the same hands in the same order give the same bytes."""

    def __init__(self, model: HandModel, fingertip_vertices: str = "smplx") -> None:
        """`fingertip_vertices`: the definition of the observed tips, a key of `FINGERTIP_VERTICES`."""
        self.skeleton, self.prior = Skeleton(model, fingertip_vertices), pose_prior()
        self.starts = Starts(self.skeleton, self.prior)

    def fit(self, observed: Observed) -> Fits:
        """Fit every hand. Invalid observations give a finite fit with large residual or betas.

        The starting states are computed from 3D joints, else from the mean of relative joints, else from keypoints
        alone.
        """
        seen = observed.in_mano_order()
        in_3d = (seen.joint_weight > 0).any(1)
        # without a keypoint the position of relative joints is unknown
        relative = (seen.relative_precision > 0).any((1, 2)) & (seen.keypoint_weight > 0).any(1) & ~in_3d
        state = _blank(len(seen))
        for chunk in _chunks(np.flatnonzero(in_3d)):
            hands = seen[chunk]
            start = self.starts.from_joints(hands.joints_m, hands.joint_weight)
            state.put(chunk, self._best_of(hands, [start], FIRST_STEPS))
        for chunk in _chunks(np.flatnonzero(relative)):
            hands = seen[chunk]
            state.put(chunk, self._best_of(hands, [self.starts.from_relative(hands)], FIRST_STEPS))
        self._fit_keypoints(seen, np.flatnonzero(~in_3d & ~relative), state)
        return self._with_residuals(seen, state)

    def _fit_keypoints(self, seen: Observed, rows: NDArray[np.int64], state: State) -> None:
        """Fill in these rows of `state`. Poor fits of all chunks are batched for the next attempt, for efficiency."""
        apart = np.full(len(seen), np.inf)
        first = 0
        for attempt in ATTEMPTS_2D:
            last = first + attempt.starts
            for chunk in _chunks(rows[apart[rows] > attempt.above]):
                hands = seen[chunk]
                found = self._best_of(hands, self.starts.from_keypoints(hands, last)[first:], attempt.steps)
                left = self._residuals(hands, found)[1] / hands.hand_px
                nearer = ~(left >= apart[chunk])  # also where nothing was observed and the distance is NaN
                state.put(chunk[nearer], found[nearer])
                apart[chunk] = np.minimum(left, apart[chunk])
            first = last

    def _best_of(self, seen: Observed, starts: list[State], steps: int) -> State:
        """The fit with minimal cost after this number of steps from each start, refined."""
        noise = _first_noise(seen)
        best, least = solve(self.skeleton, self.prior, seen, noise, starts[0], steps)
        for start in starts[1:]:
            state, cost = solve(self.skeleton, self.prior, seen, noise, start, steps)
            best, least = State.choose(cost < least, state, best), np.minimum(cost, least)
        return self._refined(seen, best)

    def _refined(self, seen: Observed, state: State) -> State:
        """Solve again with the noise estimated from the residuals, so that accurate joints are fitted closely."""
        for _ in range(REFINEMENTS):
            noise = self._remaining_noise(seen, state)
            state, _ = solve(self.skeleton, self.prior, seen, noise, state, STEPS)
        return state

    def _remaining_noise(self, seen: Observed, state: State) -> Noise:
        mm, px = self._residuals(seen, state)
        # a mean distance of D in n dimensions means a standard deviation of about D / sqrt(n) in each
        joint = np.clip(np.nan_to_num(mm / 1000) / np.sqrt(3), JOINT_NOISE_M[0], JOINT_NOISE_M[2])
        side = np.clip(np.nan_to_num(px / seen.hand_px) / np.sqrt(2), KEYPOINT_NOISE[0], KEYPOINT_NOISE[2])
        return Noise(joint, side * seen.hand_px)

    def _residuals(self, seen: Observed, state: State) -> tuple[Array64, Array64]:
        points = self.skeleton.points(state)
        pixels, _ = project(points, seen.K_px)
        return (
            1000 * _mean_distance(points - seen.joints_m, seen.joint_weight),
            _mean_distance(pixels - seen.keypoints_px, seen.keypoint_weight),
        )

    def _with_residuals(self, seen: Observed, state: State) -> Fits:
        pose_aa, transl = self.skeleton.mano_pose(state)
        mm, px = self._residuals(seen, state)
        return Fits(pose_aa, state.betas, transl, np.rad2deg(state.angles), mm, px, seen.hand_px)


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK)]


def _first_noise(seen: Observed) -> Noise:
    return Noise(np.full(len(seen), JOINT_NOISE_M[1]), KEYPOINT_NOISE[1] * seen.hand_px)


def _mean_distance(apart: Array64, weight: Array64) -> Array64:
    """(B, 21, n) differences and (B, 21) weights -> (B,) weighted mean length; NaN if all weights are zero."""
    total = weight.sum(1)
    distance = (np.linalg.norm(apart, axis=2) * weight).sum(1)
    return np.where(total > 0, distance / np.where(total > 0, total, 1.0), np.nan)


def _blank(count: int) -> State:
    return State(np.zeros((count, 3)), np.zeros((count, 3, 3)), np.zeros((count, 26)), np.zeros((count, 10)))
