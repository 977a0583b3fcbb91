"""The steps that make images on this machine: the synthetic hands, and letters with their shards and sidecars."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskhand.annotate.rendered_poses import annotate_rendered
from maskhand.catalog import load_spec
from maskhand.cluster.map import map_shards
from maskhand.cluster.session import ray_session
from maskhand.config import Recipe
from maskhand.kept_json import KeptFileError
from maskhand.progress import Progress
from maskhand.shards.layout import MANO
from maskhand.steps.annotation import annotate_keypoints
from maskhand.steps.data import PartReceipt, part_receipt, shard
from maskhand.steps.receipt import Receipt
from maskhand.steps.training_checks import check_held_out, least_held_out
from maskhand.synth.freihand_layout import SynthError, write_freihand_synth
from maskhand.synth.letters import write_letters
from maskhand.workspace import Workspace

SYNTHETIC = "freihand_synth"
"""The dataset of the catalog that this machine renders itself."""
LETTERS = "asl_alphabet_synth"
LETTER_SPLITS = ("letters_train", "letters_test")
LETTER_DETECTOR = "litert-hand"
"""For text to mesh: the rendered dataset, the splits that are used, whose 2D keypoints."""
PER_LETTER = 20
"""Images of each letter, by default."""


@dataclass(frozen=True)
class SyntheticReceipt(Receipt):
    """Names `synth.json` of the rendered dataset."""

    hands: int
    evaluation_hands: int
    seed: int


def synthesize(
    workspace: Workspace,
    hands: int,
    evaluation_hands: int,
    mocap_poses: int,
    seed: int,
    progress: Progress,
    rebuild: bool = False,
    second_hand: float = 0.0,
) -> SyntheticReceipt:
    """Render the synthetic dataset into WORKSPACE/raw/freihand_synth.

    Each training hand gets as many images as the set's card states; a share `second_hand` of them show a left hand
    beside it. `rebuild` replaces one that was made with
    other numbers; without it that is an error.
    """
    folder = workspace.raw / SYNTHETIC
    write = partial(
        write_freihand_synth,
        folder,
        train=hands,
        evaluation=evaluation_hands,
        mocap=mocap_poses,
        seed=seed,
        versions=load_spec(SYNTHETIC).images_per_annotation.get("training", 1),
        second_hand=second_hand,
        workers=available_cores(),
        progress=progress,
    )
    _write_raw(write, folder, rebuild)
    return SyntheticReceipt.of(str(folder / "synth.json"), hands=hands, evaluation_hands=evaluation_hands, seed=seed)


def with_hands_to_validate_on(recipe: Recipe, overrides: Sequence[str], hands: int) -> list[str]:
    """The overrides of a training on `hands` rendered hands alone, with a larger `data.held_out` where these are so few
    that the recipe's share leaves none. ConfigError where an override has set that share.
    """
    count = hands * load_spec(SYNTHETIC).images_per_annotation.get("training", 1)
    sets = {f"{SYNTHETIC}/training": count}
    least = least_held_out(recipe, sets) if recipe.data.train.keys() == sets.keys() else None
    if least is None:
        return list(overrides)
    if any(override.startswith("data.held_out") for override in overrides):
        check_held_out(recipe, sets)
    logging.getLogger(__name__).warning(
        f"recipe {recipe.name}: data.held_out is {least:g} instead of {recipe.data.held_out:g}, which would leave none "
        f"of {count} images to validate on"
    )
    return [*overrides, f"data.held_out={least:g}"]


def _write_raw(write: Callable[[], object], folder: Path, rebuild: bool) -> None:
    """Make a synthetic set; `rebuild` replaces one that was made with other numbers (SynthError without it)."""
    try:
        write()
    except (SynthError, KeptFileError):
        if not rebuild:
            raise
        shutil.rmtree(folder)
        write()


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def alphabet(
    workspace: Workspace, per_letter: int, seed: int, progress: Progress, rebuild: bool = False
) -> list[PartReceipt]:
    """Synthetic ASL letters into WORKSPACE/raw/asl_alphabet_synth, then their shards, keypoints and MANO targets.

    The receipts name the manifests of the `mano` parts. `rebuild` replaces letters that were made with other
    numbers; without it they are an error.
    """
    folder = workspace.raw / LETTERS
    write = partial(
        write_letters,
        folder,
        per_letter=per_letter,
        seed=seed,
        workers=available_cores(),
        progress=progress,
    )
    _write_raw(write, folder, rebuild)
    receipts = []
    with ray_session():
        for split in LETTER_SPLITS:
            name = f"{LETTERS}/{split}"
            shard(workspace, LETTERS, split, None, progress, rebuild=True)
            annotate_keypoints(workspace, name, LETTER_DETECTOR, progress, rebuild=True)
            set_uri = workspace.shard_set(name)
            manifest = annotate_rendered(set_uri, folder, mapper=map_shards, rebuild=True)
            receipts.append(part_receipt(set_uri, MANO, manifest))
    return receipts
