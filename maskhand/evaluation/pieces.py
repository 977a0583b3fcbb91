"""A part of an evaluation: whole batches of a shard set, measured alike wherever and beside whatever they run.

A batch is always the same samples and computed by one thread, with random numbers of its own for each number of
iterations, so the numbers of an evaluation depend neither on how its batches are shared among workers nor on what else
is asked of them. Drawn hands do depend on the size of a batch: its rows share their random numbers.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from maskhand.config import Recipe
from maskhand.conventions import Side
from maskhand.device import accelerator
from maskhand.evaluation.compare import Table, always, compare, ground_truth, is_finite
from maskhand.evaluation.mean_pose import MeanPose
from maskhand.evaluation.predictions import Predictions, place
from maskhand.evaluation.result import MEAN_POSE
from maskhand.loading.loader import EvalRows, eval_range
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import MODEL, method_calibrations
from maskhand.models.confidence import joint_confidence
from maskhand.models.estimators import Predictor
from maskhand.models.sampling import sample
from maskhand.placement import CAMERA_SOURCES


@dataclass(frozen=True)
class Job:
    """What is measured on which set."""

    set_uri: str
    recipe: Recipe
    predictors: tuple[Predictor, ...]
    product: Predictor
    """The one among them that the model uses: its hands are shown and submitted, and have a confidence."""
    baseline: MeanPose | None
    tips: Mapping[Side, str | None]
    """Whose fingertip vertices the set's annotation uses: keys of FINGERTIP_VERTICES, None = the model's own."""
    batch: int


@dataclass(frozen=True)
class Measured:
    """Some batches of a job."""

    tables: dict[str, Table]
    """By predictor."""
    predictions: Predictions
    """The product's."""
    without_pose: int
    """Samples without any 2D keypoint: the detector saw no hand, or the recipe gives none."""


def measure(job: Job, bundle: ModelBundle, batches: range) -> Measured:
    """Measure the batches numbered `batches`. The image is encoded once; each predictor decodes from the same
    context."""
    tables: dict[str, list[Table]] = defaultdict(list)
    predictions: list[Predictions] = []
    without_pose = 0
    start, stop = batches.start * job.batch, batches.stop * job.batch
    with _one_thread():
        for rows in eval_range(job.recipe, job.set_uri, start, stop, job.batch):
            for name, table in _measure_batch(job, bundle, rows, predictions).items():
                tables[name].append(table)
            without_pose += int((rows.hands.keypoints_2d[..., 2] <= 0).all(1).sum())
    joined = {name: Table.concatenate(parts) for name, parts in tables.items()}
    return Measured(joined, Predictions.concatenate(predictions), without_pose)


def measure_with(job: Job, model_folder: str, batches: range) -> Measured:
    """As `measure`, with the exported model in a folder: what a worker elsewhere can be given."""
    return measure(job, exported_model(model_folder), batches)


@functools.lru_cache(maxsize=1)
def exported_model(folder: str) -> ModelBundle:
    """The model exported to a folder, on this process's accelerator: a worker does many pieces of work with one."""
    return ModelBundle.load(folder, device=accelerator())


def _measure_batch(job: Job, bundle: ModelBundle, rows: EvalRows, predictions: list[Predictions]) -> dict[str, Table]:
    model, mano = bundle.model, bundle.model.mano
    device = next(model.parameters()).device
    truth = ground_truth(rows.hands, rows.samples, mano)
    tips = [job.tips[row.sample.side] for row in rows.samples]
    unreadable = ["bad_image" if bad else "" for bad in rows.unreadable]
    on_device = rows.hands.to(device)
    tables: dict[str, Table] = {}
    with torch.inference_mode():
        context = model.encode(model.condition(on_device), on_device.keypoints_2d)
        methods = method_calibrations(job.recipe.sampler, bundle.calibration)
        for asked in job.predictors:
            seed = _seed(job.recipe.seed, rows.samples[0].index, asked.sampler.iterations)
            guess = sample(model, context, asked.sampler, torch.Generator(device).manual_seed(seed)).to("cpu")
            finite = is_finite(guess).tolist()
            failure = [reason or ("" if ok else "not_finite") for reason, ok in zip(unreadable, finite, strict=True)]
            lost = torch.tensor([bool(reason) for reason in failure])
            crop_px = job.recipe.data.crop_px
            placed, by_model = (
                place(guess, lost, rows.hands, rows.samples, crop_px, tips, camera) for camera in CAMERA_SOURCES
            )
            known = None
            if asked == job.product:
                predictions.append(placed)
                if bundle.calibration is not None and MODEL in methods:
                    draws, noise = bundle.calibration.draws, bundle.calibration.seed
                    known = joint_confidence(model, context, guess.joints_m, methods[MODEL], draws, noise)
            tables[asked.name] = compare(guess, truth, rows.samples, tips, failure, placed, by_model, known)
        if job.baseline is not None:
            mean = always(job.baseline, mano, len(rows.samples))
            tables[MEAN_POSE] = compare(mean, truth, rows.samples, tips, [""] * len(rows.samples))
    return tables


def _seed(*facts: int) -> int:
    return int(np.random.SeedSequence(facts).generate_state(1)[0])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over several threads are rounded differently from sums over one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
