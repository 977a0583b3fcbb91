"""The identity of a training run: what decides its weights, as a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from maskhand.config import INFERENCE_SETTINGS, Recipe
from maskhand.digest import short_digest

Kind = Literal["tokenizer", "transformer"]

_TRAINING_KEYS: dict[Kind, tuple[str, ...]] = {
    "tokenizer": ("seed", "data.upright", "tokenizer", "tokenizer_training", "hand"),
    "transformer": (
        "seed", "data.train", "data.posed_hands", "data.caption", "data.crop_px", "data.crop_aspect", "data.box_scale",
        "data.upright", "data.keypoints", "data.augment", "data.shard_streams", "data.held_out", "tokenizer", "model",
        "training", "hand", "engine.precision",
    ),
}  # fmt: skip
"""Keys and sections of a recipe that determine the weights. How a step is distributed (workers, ZeRO stage, device) is
not among them: it changes only rounding, and a run may be resumed with another distribution."""


def run_identity(kind: Kind, recipe: Recipe, inputs: Mapping[str, str]) -> str:
    """12 hex digits over everything that determines the outcome of a training.

    These are the recipe's values that matter for this kind (not those of the sampler), and `inputs`: digests by name
    of the shard sets, the hand model, the code and, for the transformer, the tokenizer.
    """
    facts = {"kind": kind, "recipe": deciding_values(kind, recipe), "inputs": dict(inputs)}
    return short_digest(json.dumps(facts, sort_keys=True))


def deciding_values(kind: Kind, recipe: Recipe) -> dict[str, str]:
    """Dotted key -> value of a recipe, for the keys that determine the outcome of one kind of training."""
    values = _values(recipe, [f"{part}." for part in _TRAINING_KEYS[kind]])
    values = {name: value for name, value in values.items() if not f"{name}.".startswith(INFERENCE_SETTINGS)}
    if kind == "tokenizer" or recipe.data.posed_hands:
        values["data.mocap"] = json.dumps(recipe.data.mocap)
        values["data.pose_sets"] = json.dumps(recipe.data.pose_sets, sort_keys=True)
    return values


def inference_digest(recipe: Recipe) -> str:
    """12 hex digits over the inference settings of a trained model: sampler, evaluation, held-out sets."""
    values = _values(recipe, [*INFERENCE_SETTINGS, "data.evaluate."])
    return short_digest(json.dumps(values, sort_keys=True))


def _values(recipe: Recipe, below: Sequence[str]) -> dict[str, str]:
    return {k: v for k, v in recipe.flat().items() if f"{k}.".startswith(tuple(below))}
