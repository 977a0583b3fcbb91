"""Measuring a model on a shard set: one way for `evaluate`, the scheduled re-evaluation and the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from maskhand.progress import Progress
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.config import Recipe, SamplerConfig
    from maskhand.evaluation.mean_pose import MeanPose
    from maskhand.evaluation.result import EvaluationResult
    from maskhand.models.bundle import ModelBundle


def load_model(folder: str, workers: int = 1) -> ModelBundle:
    """The model exported to `folder`, on the accelerator where there is one; several workers have their own."""
    from maskhand.device import accelerator
    from maskhand.models.bundle import ModelBundle

    return ModelBundle.load(folder, device=accelerator() if workers == 1 else "cpu")


def training_mean_pose(workspace: Workspace, recipe: Recipe) -> MeanPose | None:
    """The mean pose of a recipe's training sets; None where their MANO targets are not all on this machine."""
    from maskhand.evaluation.mean_pose import mean_pose_of_sets
    from maskhand.shards.layout import MANO
    from maskhand.shards.manifest import find_manifest

    train = {workspace.shard_set(name): weight for name, weight in recipe.data.train.items()}
    return mean_pose_of_sets(train) if all(find_manifest(uri, MANO) is not None for uri in train) else None


def measure_set(
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
    from maskhand.catalog import load_spec
    from maskhand.evaluation import runner
    from maskhand.shards.build import serial_map

    with _mapper(workers) as mapper:
        return runner.evaluate(
            bundle,
            workspace.shard_set(name),
            recipe,
            samplers=samplers,
            baseline=baseline,
            tips=load_spec(name.partition("/")[0]).fingertips,
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
    from maskhand.cluster.map import map_on_gpus
    from maskhand.cluster.session import ray_session

    with ray_session():
        yield partial(map_on_gpus, concurrency=workers)
