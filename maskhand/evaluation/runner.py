"""Evaluate a model on a shard set: every sample exactly once, by the paper's procedure and by the model's estimator.

Any number of workers gives the same numbers, to the last bit (see `worker`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from maskhand.config import Recipe, SamplerConfig
from maskhand.conventions import Side
from maskhand.errors import MaskhandError
from maskhand.evaluation.errors import ErrorTable
from maskhand.evaluation.mean_pose import MeanPose
from maskhand.evaluation.result import EvaluationResult
from maskhand.evaluation.worker import EvalChunk, EvalJob, evaluate_chunk, evaluate_chunk_of
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import bundle_digest
from maskhand.models.calibration import estimator_of
from maskhand.models.estimators import Estimator, named_estimator, paper_procedure
from maskhand.progress import Progress, silent
from maskhand.scoring.predictions import Predictions
from maskhand.shards.build import Mapper, serial_map
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import read_manifest

MODEL_FINGERTIPS: Mapping[Side, str | None] = {"right": None, "left": None}


class EvaluationError(MaskhandError, RuntimeError):
    """An evaluation that did not see every sample exactly once, or has no ground truth to compare with."""


def evaluate(
    bundle: ModelBundle,
    set_uri: str,
    recipe: Recipe | None = None,
    *,
    samplers: Sequence[SamplerConfig] | None = None,
    baseline: MeanPose | None = None,
    fingertip_vertices: Mapping[Side, str | None] = MODEL_FINGERTIPS,
    batch: int | None = None,
    mapper: Mapper = serial_map,
    model_folder: str | None = None,
    progress: Progress = silent,
) -> EvaluationResult:
    """Measure a model, and the mean pose beside it.

    recipe: other data or sampler settings than the bundle's own; samplers: inference settings of the estimators, of
    which the last one counts; default the paper's procedure at the recipe's `evaluate.iterations` and, last, the
    model's own estimator (a model without tokens has one); fingertip_vertices: per side, which ones the set's
    annotation uses (a key of FINGERTIP_VERTICES; None: the model's own); mapper: shares the batches among workers, who
    load the bundle from `model_folder`. Raises EvaluationError when the set has no ground truth or a sample was seen
    twice or never, ShardError when the set is missing or damaged.
    """
    settings = recipe or bundle.recipe
    manifest = read_manifest(set_uri, IMAGES)
    if not manifest.count:
        raise EvaluationError(f"{set_uri}: the set holds no samples")
    estimators = _estimators(settings, bundle, samplers)
    job = EvalJob(
        set_uri=set_uri,
        recipe=settings,
        estimators=tuple(estimators.values()),
        estimator=list(estimators.values())[-1],
        baseline=baseline,
        fingertip_vertices=fingertip_vertices,
        batch=batch or settings.evaluate.batch,
    )
    batches = _chunks(math.ceil(manifest.count / job.batch))
    work = partial(evaluate_chunk, job, bundle)
    if model_folder is not None:
        work = partial(evaluate_chunk_of, job, model_folder, bundle_digest(model_folder))
    done = 0

    def count(part: EvalChunk) -> None:
        nonlocal done
        done += len(part.predictions)
        progress(done, manifest.count, f"{done} hands")

    parts = mapper(work, batches, on_done=count)
    tables = {name: ErrorTable.concatenate([part.tables[name] for part in parts]) for name in parts[0].tables}
    first = next(iter(tables.values()))
    _check_once(first, manifest.count, set_uri)
    truths = (first.has_joints, first.has_mesh, ~first.placed.distance_px.isnan())
    if not any(bool(truth.any()) for truth in truths):
        raise EvaluationError(f"{set_uri}: no sample has 3D joints, a mesh or 2D joints to compare with")
    without_pose = sum(part.without_pose for part in parts)
    if without_pose == manifest.count and settings.data.keypoints.eval_source != "none":
        logging.getLogger(__name__).warning(
            f"{set_uri}: not one of its {manifest.count} hands has a 2D keypoint; this is the network without 2D pose"
        )
    failures = Counter(reason for reason in tables[job.estimator.name].failure if reason)
    return EvaluationResult(
        set_uri=set_uri,
        data_digest=manifest.digest,
        model_digest=bundle.digest,
        count=len(first.keys),
        with_joints=int(first.has_joints.sum()),
        with_mesh=int(first.has_mesh.sum()),
        rows=tuple(table.row(name, estimators.get(name)) for name, table in tables.items()),
        estimator=job.estimator.name,
        per_sample=pd.concat([table.frame(name) for name, table in tables.items()], ignore_index=True),
        facts=_facts(job, bundle)
        | {
            "rejected_in_shards": dict(manifest.rejects),
            "failed": dict(failures),
            "without_2d_pose": without_pose,
        },
        errors={name: table.errors for name, table in tables.items()},
        predictions=Predictions.concatenate([part.predictions for part in parts]),
    )


def _chunks(batches: int) -> list[range]:
    """Batches that a worker measures in a row. A chunk fetches its shards anew: few chunks, but some for every core."""
    size = min(16, max(1, batches // 16))
    return [range(start, min(start + size, batches)) for start in range(0, batches, size)]


def _estimators(recipe: Recipe, bundle: ModelBundle, samplers: Sequence[SamplerConfig] | None) -> dict[str, Estimator]:
    """By name, the one that counts last."""
    if samplers is None:
        paper = [paper_procedure(recipe.sampler, iterations) for iterations in recipe.evaluate.iterations]
        samplers = [*paper, estimator_of(recipe.sampler, bundle.calibration)]
    named = [named_estimator(recipe, sampler) for sampler in samplers]
    return {one.name: one for one in named if one.name != named[-1].name} | {named[-1].name: named[-1]}


def _check_once(table: ErrorTable, count: int, set_uri: str) -> None:
    if not np.array_equal(np.sort(table.index), np.arange(count)):
        raise EvaluationError(f"{set_uri}: saw {len(table.index)} samples, not each of {count} exactly once")


def _facts(job: EvalJob, bundle: ModelBundle) -> dict[str, Any]:
    """What was fixed: whoever repeats an evaluation needs all of it."""
    recipe = job.recipe
    return {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "hand_digest": bundle.model.mano.digest,
        "box": "annotated",
        "box_scale": recipe.data.box_scale,
        "keypoints": recipe.data.keypoints.eval_source,
        "detector": recipe.data.keypoints.detector,
        "sampler": recipe.sampler.model_dump(mode="json"),
        "product": job.estimator.sampler.model_dump(mode="json"),
        "calibration": None if bundle.calibration is None else bundle.calibration.facts(),
        "seed": recipe.seed,
        "batch": job.batch,
        "fingertip_vertices": dict(job.fingertip_vertices),
        "mean_pose_hands": None if job.baseline is None else job.baseline.count,
    }
