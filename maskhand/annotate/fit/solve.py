"""Levenberg-Marquardt for a batch: the most probable hands given the observations, always within the joint limits.

Angles at a limit that the gradient pushes beyond it are fixed for a step, and the result is clipped to the limits
(projected Gauss-Newton). Every hand has its own damping; converged hands are removed from the batch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskhand.annotate.fit.observed import Noise, Observed, misfit, normal_equations
from maskhand.annotate.fit.prior import PosePrior
from maskhand.annotate.fit.skeleton import ANGLES, BETAS, NUM_PARAMETERS, ORIENTATION, Skeleton, State
from maskhand.arrays import Array64, times_each

START_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-7, 1e7
LESS, MORE = 0.2, 5.0
CONVERGED = 1e-5
"""A hand has converged when a step lowers its cost by less than this fraction of (1 + cost)."""
MAX_ROTATION_STEP = 0.8
"""Radians; the linearization of rotations is not valid beyond."""
LEAST_CURVATURE = 1e-12
"""Fraction of the largest curvature added for parameters on which no observation depends."""


def solve(
    skeleton: Skeleton, prior: PosePrior, seen: Observed, noise: Noise, start: State, max_steps: int
) -> tuple[State, Array64]:
    """The states (B hands) with the lowest cost found from `start`, and their costs (B,). `seen`: in MANO's order."""
    result = start.copy()
    state, cost = start, _cost(skeleton, prior, seen, noise, start)
    result_cost, rows = cost.copy(), np.arange(len(start))
    damping = np.full(len(start), START_DAMPING)
    for _ in range(max_steps):
        moved = state.moved(_step(skeleton, prior, seen, noise, state, damping))
        moved = replace(moved, angles=prior.within_limits(moved.angles))
        new_cost = _cost(skeleton, prior, seen, noise, moved)
        better = new_cost < cost
        converged = np.where(better, cost - new_cost < CONVERGED * (1 + cost), damping >= MOST_DAMPING)
        damping = np.clip(damping * np.where(better, LESS, MORE), LEAST_DAMPING, MOST_DAMPING)
        state, cost = State.choose(better, moved, state), np.where(better, new_cost, cost)
        result.put(rows, state)
        result_cost[rows] = cost
        going = ~converged
        if not going.any():
            break
        if converged.any():
            rows, state, cost, damping = rows[going], state[going], cost[going], damping[going]
            seen, noise = seen[going], noise[going]
    return result, result_cost


def _cost(skeleton: Skeleton, prior: PosePrior, seen: Observed, noise: Noise, state: State) -> Array64:
    """(B,) negative log probability, up to a constant."""
    off = state.angles - prior.mean
    unusual = 0.5 * (times_each(off, prior.precision) * off).sum(1) + 0.5 * (state.betas**2).sum(1)
    return misfit(skeleton.points(state), seen, noise) + unusual


def _step(
    skeleton: Skeleton, prior: PosePrior, seen: Observed, noise: Noise, state: State, damping: Array64
) -> Array64:
    """(B, 42) damped Gauss-Newton step, zero for angles that are pushed against a limit."""
    matrix, gradient = normal_equations(*skeleton.points_and_jacobian(state), seen, noise)
    matrix[:, ANGLES, ANGLES] += prior.precision
    gradient[:, ANGLES] += times_each(state.angles - prior.mean, prior.precision)
    matrix[:, BETAS, BETAS] += np.eye(state.betas.shape[1])
    gradient[:, BETAS] += state.betas

    low, high = prior.bounds(state.angles)
    held = np.zeros(gradient.shape, bool)
    held[:, ANGLES] = ((state.angles <= low) & (gradient[:, ANGLES] > 0)) | (
        (state.angles >= high) & (gradient[:, ANGLES] < 0)
    )
    matrix[held[:, :, None] | held[:, None]] = 0.0
    gradient[held] = 0.0
    place = np.arange(NUM_PARAMETERS)
    diagonal = matrix[:, place, place]
    floor = LEAST_CURVATURE * diagonal.max(1, keepdims=True)
    matrix[:, place, place] = np.where(held, 1.0, diagonal + damping[:, None] * np.maximum(diagonal, floor) + floor)
    step = -np.linalg.solve(matrix, gradient[..., None])[..., 0]
    rotated = np.abs(np.concatenate([step[:, ORIENTATION], step[:, ANGLES]], axis=1)).max(1)
    return np.asarray(step * np.minimum(1.0, MAX_ROTATION_STEP / np.maximum(rotated, 1e-12))[:, None])
