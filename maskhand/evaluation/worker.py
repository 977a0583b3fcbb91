"""What a worker does of an evaluation: a chunk of whole batches, measured alike wherever and beside whatever it runs.

A batch is always the same samples and computed by one thread, with random numbers of its own for each number of
iterations, so the numbers of an evaluation depend neither on how its batches are shared among workers nor on which
other estimators are measured. Drawn hands do depend on the size of a batch: its rows share their random numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from maskhand.config import Recipe
from maskhand.conventions import Side
from maskhand.device import one_thread
from maskhand.evaluation.errors import ErrorTable, constant_predictor, error_table
from maskhand.evaluation.mean_pose import MeanPose
from maskhand.evaluation.placed import place
from maskhand.evaluation.result import MEAN_POSE
from maskhand.evaluation.truth import ground_truth
from maskhand.loading.loader import EvalRows, eval_range
from maskhand.models.bundle import ModelBundle, worker_bundle
from maskhand.models.confidence import calibrated_confidence
from maskhand.models.estimators import Estimator
from maskhand.models.sampling import sample
from maskhand.placement import PLACED_BY, in_image_axes
from maskhand.scoring.predictions import Predictions


@dataclass(frozen=True)
class EvalJob:
    """What is measured on which set; picklable."""

    set_uri: str
    recipe: Recipe
    estimators: tuple[Estimator, ...]
    estimator: Estimator
    """The one among them that counts: its hands are shown and submitted, and have a confidence."""
    baseline: MeanPose | None
    fingertip_vertices: Mapping[Side, str | None]
    """Whose fingertip vertices the set's annotation uses: keys of FINGERTIP_VERTICES, None = the model's own."""
    batch: int


@dataclass(frozen=True)
class EvalChunk:
    """What was found on some batches of a job."""

    tables: dict[str, ErrorTable]
    """By predictor."""
    predictions: Predictions
    """Of the estimator that counts."""
    without_pose: int
    """Samples without any 2D keypoint: the detector saw no hand, or the recipe gives none."""


def evaluate_chunk(job: EvalJob, bundle: ModelBundle, batches: range) -> EvalChunk:
    """The batches numbered `batches`. The image is encoded once; each estimator decodes from the same
    context."""
    tables: dict[str, list[ErrorTable]] = defaultdict(list)
    predictions: list[Predictions] = []
    without_pose = 0
    start, stop = batches.start * job.batch, batches.stop * job.batch
    with one_thread():
        for rows in eval_range(job.recipe, job.set_uri, start, stop, job.batch):
            for name, table in _evaluate_batch(job, bundle, rows, predictions).items():
                tables[name].append(table)
            without_pose += int((rows.hands.keypoints_2d[..., 2] <= 0).all(1).sum())
    joined = {name: ErrorTable.concatenate(parts) for name, parts in tables.items()}
    return EvalChunk(joined, Predictions.concatenate(predictions), without_pose)


def evaluate_chunk_of(job: EvalJob, model_folder: str, digest: str, batches: range) -> EvalChunk:
    """As `evaluate_chunk`, with the exported model in a folder: what a worker elsewhere can be given."""
    return evaluate_chunk(job, worker_bundle(model_folder, digest).with_settings(job.recipe), batches)


def _evaluate_batch(
    job: EvalJob, bundle: ModelBundle, rows: EvalRows, predictions: list[Predictions]
) -> dict[str, ErrorTable]:
    model, mano = bundle.model, bundle.model.mano
    device = next(model.parameters()).device
    truth = ground_truth(rows.hands, rows.samples, mano)
    fingertips = [job.fingertip_vertices[row.sample.side] for row in rows.samples]
    unreadable = ["bad_image" if bad else "" for bad in rows.unreadable]
    on_device = rows.hands.to(device)
    tables: dict[str, ErrorTable] = {}
    with torch.inference_mode():
        context = model.encode(model.condition(on_device), on_device.keypoints_2d)
        for estimator in job.estimators:
            seed = _seed(job.recipe.seed, rows.samples[0].index, estimator.sampler.iterations)
            found = sample(model, context, estimator.sampler, torch.Generator(device).manual_seed(seed)).to("cpu")
            prediction = in_image_axes(found, rows.hands)
            finite = prediction.is_finite.tolist()
            failure = [reason or ("" if ok else "not_finite") for reason, ok in zip(unreadable, finite, strict=True)]
            failed = torch.tensor([bool(reason) for reason in failure])
            crop_px = job.recipe.data.crop_px
            placed, by_model = (
                place(prediction, failed, rows.hands, rows.samples, crop_px, fingertips, placed_by)
                for placed_by in PLACED_BY
            )
            confidence = None
            if estimator == job.estimator:
                predictions.append(placed)
                confidence = calibrated_confidence(
                    model, context, prediction.joints_m, job.recipe.sampler, bundle.calibration
                )
            tables[estimator.name] = error_table(
                prediction, truth, rows.samples, fingertips, failure, placed, by_model, confidence
            )
        if job.baseline is not None:
            mean = constant_predictor(job.baseline, mano, len(rows.samples))
            tables[MEAN_POSE] = error_table(mean, truth, rows.samples, fingertips, [""] * len(rows.samples))
    return tables


def _seed(*facts: int) -> int:
    return int(np.random.SeedSequence(facts).generate_state(1)[0])
