"""A model on one shard set: one way for `evaluate`, the scheduled re-evaluation and the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from maskhand.catalog import load_spec
from maskhand.cluster.map import map_on_gpus
from maskhand.cluster.session import ray_session
from maskhand.config import Recipe, SamplerConfig
from maskhand.evaluation import runner
from maskhand.evaluation.mean_pose import MeanPose, mean_pose_of_sets
from maskhand.evaluation.result import EvaluationResult
from maskhand.models.bundle import ModelBundle
from maskhand.progress import Progress
from maskhand.shards.build import serial_map
from maskhand.shards.layout import MANO
from maskhand.shards.manifest import check_hand_model, find_manifest
from maskhand.workspace import Workspace


def training_mean_pose(workspace: Workspace, recipe: Recipe) -> MeanPose | None:
    """The mean pose of a recipe's training sets; None where their MANO targets are not all on this machine."""
    train = {workspace.shard_set(name): weight for name, weight in recipe.data.train.items()}
    return mean_pose_of_sets(train) if all(find_manifest(uri, MANO) is not None for uri in train) else None


def evaluate_set(
    workspace: Workspace,
    bundle: ModelBundle,
    name: str,
    progress: Progress,
    *,
    baseline: MeanPose | None,
    recipe: Recipe | None = None,
    samplers: Sequence[SamplerConfig] | None = None,
    workers: int = 1,
    folder: str | None = None,
) -> EvaluationResult:
    """The model on the shard set `name`, with the fingertips of its card (see `runner.evaluate`).

    workers: Ray workers who share the batches and load the model from `folder`.
    """
    check_hand_model(workspace.shard_set(name), bundle.hand_digest, "the model")
    with _mapper(workers) as mapper:
        return runner.evaluate(
            bundle,
            workspace.shard_set(name),
            recipe,
            samplers=samplers,
            baseline=baseline,
            fingertip_vertices=load_spec(name.partition("/")[0]).fingertips,
            mapper=mapper or serial_map,
            model_folder=folder if mapper else None,
            progress=progress,
        )


@contextmanager
def _mapper(workers: int) -> Iterator[Any]:
    """Shares work among that many Ray workers; None for one, which is this process."""
    if workers == 1:
        yield None
        return

    with ray_session():
        yield partial(map_on_gpus, concurrency=workers)
