"""What would end a training is looked for before it starts; the transformer's before its tokenizer, which takes days.

Bounds of single keys, and of keys that belong together, are the recipe's own (`config`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from maskhand.catalog import load_spec
from maskhand.cluster.train import places
from maskhand.config import ConfigError, Recipe
from maskhand.evaluation.held_out import TrainingSet, has_joints
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import check_model
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import read_manifest
from maskhand.shards.mixture import held_out_places
from maskhand.shipped_models import OPEN
from maskhand.steps import step_inputs
from maskhand.text import caption_ids
from maskhand.training.run_identity import Kind
from maskhand.workspace import Workspace


def check_settings(kind: Kind, recipe: Recipe, assets: Path) -> None:
    """The recipe on this machine, whatever the data: workers, and for the transformer network and pretrained files.

    Reads a checkpoint that the recipe names. Raises ConfigError, BackboneError, TextError, TrainingError.
    """
    places(recipe.engine, worker_counts(kind, recipe))
    if kind == "transformer":
        _check_paths(recipe)
        check_model(recipe, ManoLayer.from_default(), assets)
        if recipe.model.condition == "text":
            caption_ids(["a hand"], recipe.model.text)


def check_transformer(workspace: Workspace, recipe: Recipe) -> None:
    """Everything of `check_settings` and `check_validation`, and that the shard sets and their sidecars are there
    (ShardError)."""
    check_settings("transformer", recipe, workspace.assets)
    step_inputs.training_digests(workspace, "transformer", recipe)
    check_validation(workspace, recipe)


def check_validation(workspace: Workspace, recipe: Recipe) -> None:
    """ConfigError where a transformer is to be validated and no hand that is held out can be measured on: its sets are
    too small, or those hands have no 3D joints. ShardError."""
    if not recipe.training.validate_every:
        return
    sets = training_sets(workspace, recipe)
    check_held_out(recipe, {one.name: read_manifest(one.uri, IMAGES).count for one in sets})
    if not has_joints(recipe, sets, recipe.training.validate_hands):
        raise ConfigError(
            f"data.held_out={recipe.data.held_out:g}: no hand that is held out of {' and '.join(recipe.data.train)} "
            "has 3D joints to validate on; raise data.held_out, or --set training.validate_every=0 does without"
        )


def training_sets(workspace: Workspace, recipe: Recipe) -> tuple[TrainingSet, ...]:
    """The recipe's, whose held-out hands validations and calibrations look at."""
    return tuple(
        TrainingSet(name, workspace.shard_set(name), weight, load_spec(name.partition("/")[0]).fingertips)
        for name, weight in recipe.data.train.items()
    )


def check_held_out(recipe: Recipe, hands: Mapping[str, int]) -> None:
    """ConfigError where `least_held_out` is more than the recipe has."""
    if least := least_held_out(recipe, hands):
        sets = " and ".join(f"{count} hands of {name}" for name, count in hands.items())
        raise ConfigError(
            f"data.held_out={recipe.data.held_out:g} of {sets} leaves none to validate on; --set data.held_out="
            f"{least:g} leaves one, --set training.validate_every=0 does without"
        )


def least_held_out(recipe: Recipe, hands: Mapping[str, int]) -> float | None:
    """The share (`data.held_out`) that leaves a hand to validate on; None where there is one already, or none is asked.

    hands: how many each training set has.
    """
    share = recipe.data.held_out
    if not recipe.training.validate_every or any(len(held_out_places(count, share)) for count in hands.values()):
        return None
    return math.ceil(1e4 / max(2, *hands.values())) / 1e4


def worker_counts(kind: Kind, recipe: Recipe) -> list[int]:
    """The numbers of workers that a training may run on, the most first: from `engine.workers` down to
    `engine.min_workers`, those that share out its batch and its streams of shards evenly. ConfigError where
    `engine.workers` is none of them."""
    shared = {"tokenizer_training.optim.batch": recipe.tokenizer_training.optim.batch}
    if kind == "transformer":
        data, batch = recipe.data, recipe.training.optim.batch
        shared = {"training.optim.batch": batch, "data.shard_streams": data.shard_streams}
        shared["data.posed_hands"] = data.posed_hands
    workers = recipe.engine.workers
    for key, count in shared.items():
        if count % workers:
            raise ConfigError(f"{key}={count} does not divide over engine.workers={workers}; choose a multiple of it")
    fewest = recipe.engine.min_workers or workers
    return [n for n in range(workers, fewest - 1, -1) if all(count % n == 0 for count in shared.values())]


def _check_paths(recipe: Recipe) -> None:
    backbone, text = recipe.model.backbone, recipe.model.text
    paths = {"model.backbone.checkpoint": backbone.checkpoint}
    if recipe.model.condition == "text":
        paths = {"model.text.checkpoint": text.checkpoint, "model.text.vocabulary": text.vocabulary}
    paths["training.start_from"] = recipe.training.start_from
    for key, path in paths.items():
        if path is not None and path != OPEN and not Path(path).is_absolute():
            raise ConfigError(
                f"{key}={path}: write {Path(path).absolute()}; workers have a working directory of their own"
            )
