"""Errors and PCK of predicted hands: the numbers of `maskhand evaluate`, as papers print them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from maskhand.models.estimators import named_estimator
from maskhand.paper.measures.request import Request
from maskhand.steps.evaluate_set import evaluate_set, training_mean_pose

AT_ITERATIONS = re.compile(r"T(\d+)/")
"""Beginning of a metric that is not measured at the recipe's own number of iterations."""
BELOW_MEAN_POSE = "below_mean_pose_percent"
"""How much smaller PA-MPJPE is than that of the mean training hand."""


def measure_hands(request: Request) -> dict[str, float]:
    """PCK in percent; `T1/...` are numbers at another number of iterations."""
    recipe = request.recipe
    others = {int(found[1]) for metric in request.metrics if (found := AT_ITERATIONS.match(metric))}
    samplers = {t: recipe.sampler.model_copy(update={"iterations": t}) for t in others}
    result = evaluate_set(
        request.workspace,
        request.bundle(),
        request.set_name,
        request.progress,
        baseline=training_mean_pose(request.workspace, recipe) if BELOW_MEAN_POSE in request.metrics else None,
        recipe=recipe,
        samplers=[*samplers.values(), recipe.sampler],
    )
    values = _in_percent(result.estimator_row.metrics)
    for iterations, sampler in samplers.items():
        there = result.row(named_estimator(recipe, sampler).name).metrics
        values |= {f"T{iterations}/{metric}": value for metric, value in _in_percent(there).items()}
    if result.baseline is not None:
        values[BELOW_MEAN_POSE] = 100 * (1 - values["pa_mpjpe_mm"] / result.baseline.metrics["pa_mpjpe_mm"])
    return values


def _in_percent(metrics: Mapping[str, float]) -> dict[str, float]:
    """PCK as papers print it."""
    return {name: 100 * value if name.startswith("pck") else value for name, value in metrics.items()}
