"""Choose a finished model's estimator and calibrate its confidence, on the hands that its training left out.

Everything is fitted on the held-out part of the training sets (`data.held_out`); evaluation sets are never looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import isotonic_regression

from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS
from maskhand.evaluation.held_out import TrainingSet, hands_per_set
from maskhand.evaluation.placed import with_fingertips
from maskhand.evaluation.truth import ground_truth
from maskhand.loading.loader import held_out_rows
from maskhand.metrics.accumulate import row_means
from maskhand.metrics.samples import pa_joint_errors
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import (
    WITHIN_MM,
    Calibration,
    Candidate,
    JointCalibration,
    JointMap,
    draw_features,
)
from maskhand.models.confidence import DRAWS, SEED, draw_statistics, sample_joints
from maskhand.models.estimators import candidates, named_estimator
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import sample
from maskhand.progress import Progress, silent

MOST_HANDS, FEWEST_HANDS = 1000, 20
"""Held-out hands that are looked at, over all sets, and what a table can be made of."""
_BINS = 40
"""A table's values are means over at least a fortieth of the joints: one lucky joint makes no certainty."""
_RIDGE = 1.0
"""Of the joints' offsets: it holds one that was always, or never, right on few hands."""


@dataclass
class _EstimatorErrors:
    """What was measured of one estimator."""

    errors_mm: list[Array]
    features: list[Array]


def calibrate(
    bundle: ModelBundle,
    sets: Sequence[TrainingSet],
    progress: Progress = silent,
) -> Calibration | None:
    """The bundle's calibration; None where it reads captions, has no tokens, or fewer than 20 held-out hands have 3D
    joints.

    Raises ShardError when a set is missing.
    """
    model, recipe = bundle.model, bundle.recipe
    if recipe.model.condition != "image" or not isinstance(model, MaskedTransformer):
        return None
    samplers = {named_estimator(recipe, sampler).name: sampler for sampler in candidates(recipe.sampler)}
    seen: dict[str, _EstimatorErrors] = defaultdict(lambda: _EstimatorErrors([], []))
    hands = dict[str, int]()
    device = next(model.parameters()).device
    for one, most in zip(sets, hands_per_set(sets, MOST_HANDS), strict=True):
        hands[one.name], done = 0, 0
        for rows in held_out_rows(recipe, one.uri, recipe.evaluate.batch, most):
            there = rows.hands.to(device)
            truth = ground_truth(rows.hands, rows.samples, model.mano)
            valid = truth.joints_valid.numpy() & ~rows.unreadable[:, None]
            fingertips = [one.fingertip_vertices[row.sample.side] for row in rows.samples]
            with torch.inference_mode():
                context = model.encode(model.condition(there), there.keypoints_2d)
                drawn = sample_joints(model, context)
                found = {
                    name: sample(model, context, sampler, torch.Generator(device).manual_seed(recipe.seed + done))
                    for name, sampler in samplers.items()
                }
            for name, hand in found.items():
                joints, vertices = hand.joints_m.cpu(), hand.vertices_m.cpu()
                compared = with_fingertips(joints, vertices, fingertips).double().numpy()
                usable = valid & np.isfinite(compared).all((1, 2))[:, None]
                error_m = pa_joint_errors(np.nan_to_num(compared), truth.joints_m.double().numpy(), usable)
                seen[name].errors_mm.append(1e3 * error_m)
                seen[name].features.append(draw_features(draw_statistics(drawn, joints)))
            done += len(rows.samples)
            hands[one.name] += int((valid.sum(1) > 0).sum())
            progress(done, most, f"held-out hands of {one.name}")
    if sum(hands.values()) < FEWEST_HANDS:
        return None
    measured = {name: _joined(entry) for name, entry in seen.items()}
    ranked = tuple(
        Candidate(name=name, sampler=sampler, pa_mpjpe_mm=float(np.nanmean(row_means(measured[name][0]))))
        for name, sampler in samplers.items()
    )
    best = min(ranked, key=lambda candidate: candidate.pa_mpjpe_mm).name
    return Calibration(
        sampler=recipe.sampler,
        candidates=ranked,
        draws=DRAWS,
        seed=SEED,
        hands=hands,
        joints=fit(*measured[best]),
    )


def _joined(seen: _EstimatorErrors) -> tuple[Array, Array]:
    return np.concatenate(seen.errors_mm), np.concatenate(seen.features)


def fit(error_mm: Array, features: Array) -> JointCalibration:
    """error_mm (N, 21) of reported hands, NaN where unknown, and features (N, 21, F) of the evidence beside them."""
    known = np.isfinite(error_mm) & np.isfinite(features).all(-1)
    x = _design(features)[known]
    error = error_mm[known]
    right = (error <= WITHIN_MM).astype(np.float64)
    joint = np.broadcast_to(np.arange(NUM_JOINTS), known.shape)[known]
    within = _logistic(x, right)
    expected = _least_squares(x, np.log(np.maximum(error, 0.1)))
    count = np.bincount(joint, minlength=NUM_JOINTS)
    return JointCalibration(
        within=_map(within, x @ within, right),
        error=_map(expected, x @ expected, error),
        within_by_joint=tuple((np.bincount(joint, right, NUM_JOINTS) / np.maximum(count, 1)).tolist()),
        hands=int(known.any(1).sum()),
    )


def _design(features: Array) -> Array:
    """(N, 21, F) -> (N, 21, 22 + F): constant, joint, features."""
    one_hot = np.broadcast_to(np.eye(NUM_JOINTS), (len(features), NUM_JOINTS, NUM_JOINTS))
    return np.concatenate([np.ones((*features.shape[:2], 1)), one_hot, features], axis=-1)


def _penalty(columns: int) -> Array:
    """(columns,) of the design's weights."""
    return np.array([0.0, *[_RIDGE] * NUM_JOINTS, *[1e-3] * (columns - 1 - NUM_JOINTS)])


def _logistic(x: Array, right: Array) -> Array:
    """Weights (22 + F,) of a logistic regression, by Newton's method."""
    weights, penalty = np.zeros(x.shape[1]), _penalty(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (right - p) - penalty * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _least_squares(x: Array, y: Array) -> Array:
    return np.linalg.solve(x.T @ x + np.diag(_penalty(x.shape[1]) + 1e-9), x.T @ y)


def _map(weights: Array, index: Array, value: Array) -> JointMap:
    """Weights (22 + F,) as a record, with the rising table of the values' means along the index."""
    order = np.argsort(index, kind="stable")
    parts = np.array_split(order, min(_BINS, len(order)))
    places, means = (np.array([values[part].mean() for part in parts]) for values in (index, value))
    rising = isotonic_regression(means, weights=np.array([len(part) for part in parts], np.float64)).x
    return JointMap(
        offset=tuple((weights[0] + weights[1 : 1 + NUM_JOINTS]).tolist()),
        weights=tuple(weights[1 + NUM_JOINTS :].tolist()),
        table=tuple(zip(places.tolist(), rising.tolist(), strict=True)),
    )
