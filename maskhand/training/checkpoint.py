"""The identity of a training run, and the files of an exported tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from maskhand.config import INFERENCE_SETTINGS, Recipe, TokenizerConfig
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.hand.layer import LayerName, ManoLayer, make_layer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.json_text import JsonError, parse_json_object
from maskhand.models.vq_mano import VQMano
from maskhand.models.weight_files import WeightFileError, load_state_dict
from maskhand.shipped_models import OPEN_TOKENIZERS

EXPORT = "export"
"""Folder inside the last checkpoint with the result of the run: a tokenizer, or a model bundle."""

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


class TokenizerFileError(MaskhandError, ValueError):
    """An exported tokenizer that cannot be read; the message names the file."""


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


def load_mano(path: str | None, layer: LayerName) -> ManoLayer:
    """The right-hand layer of the model file at `path`; None: the configured file, or the open hand."""
    return make_layer(load_hand_model(path or default_hand_path("right")), layer)


def save_tokenizer(folder: str | Path, weights: Mapping[str, Any], recipe: Recipe, metadata: Mapping[str, Any]) -> None:
    """Write `tokenizer.pt` (the state dict) and, last, `tokenizer.json` (settings, the file's sha256, `metadata`)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(weights), folder / "tokenizer.pt")
    digest = hashlib.sha256((folder / "tokenizer.pt").read_bytes()).hexdigest()
    record = {
        "tokenizer": recipe.tokenizer.model_dump(mode="json"),
        "sha256": digest,
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        **metadata,
    }
    (folder / "tokenizer.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def tokenizer_folder(name: str) -> Path:
    """The folder for a `--tokenizer` value: a tokenizer that ships with maskhand (`open`, `open_model`), or a path,
    made absolute."""
    return OPEN_TOKENIZERS.get(name) or Path(name).resolve()


def tokenizer_digest(folder: str | Path) -> str:
    """12 hex digits over what determines the tokens of an exported tokenizer: its settings and weights."""
    record = _tokenizer_record(Path(folder))
    return short_digest(json.dumps({key: record[key] for key in ("tokenizer", "sha256")}, sort_keys=True))


def check_tokenizer(folder: str | Path, expected: TokenizerConfig) -> None:
    """Raises TokenizerFileError if the tokenizer in `folder` is missing or has other settings; reads no weights."""
    record = _tokenizer_record(Path(folder))
    _check_settings(Path(folder), TokenizerConfig.model_validate(record["tokenizer"]), expected)


def _tokenizer_record(folder: Path) -> dict[str, Any]:
    """The fields of tokenizer.json, such as `tokenizer` (the settings) and `sha256` (of the weights)."""
    try:
        record = parse_json_object(_read_file(folder, "tokenizer.json"))
        TokenizerConfig.model_validate(record["tokenizer"])
        return record | {"sha256": str(record["sha256"])}
    except JsonError as error:
        reason = str(error)
    except KeyError as error:
        reason = f"{error.args[0]} is missing"
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, ('tokenizer', *first['loc'])))}: {first['msg']}"
    raise TokenizerFileError(
        f"{folder / 'tokenizer.json'}: not the record of an exported tokenizer of this version ({reason}); copy it "
        "again, or train one"
    )


def _read_file(folder: Path, name: str) -> bytes:
    if not (folder / name).is_file():
        raise TokenizerFileError(f"{folder}: no exported tokenizer here (no file {name}); train one first")
    return (folder / name).read_bytes()


def _check_settings(folder: Path, found: TokenizerConfig, expected: TokenizerConfig) -> None:
    different = [name for name in TokenizerConfig.model_fields if getattr(found, name) != getattr(expected, name)]
    if different:
        fitting = [name for name, shipped in OPEN_TOKENIZERS.items() if folder == shipped]
        raise TokenizerFileError(
            f"{folder}: this tokenizer was trained with other settings of {', '.join(different)}; "
            + (f"it fits the recipe `{fitting[0]}`: -r {fitting[0]}" if fitting else "train one with this recipe")
        )


def load_tokenizer(folder: str | Path, expected: TokenizerConfig | None = None) -> VQMano:
    """The frozen tokenizer exported to `folder`.

    Raises TokenizerFileError if files are missing, damaged or of another version, or if its settings are not the
    `expected` ones.
    """
    folder = Path(folder)
    record = _tokenizer_record(folder)
    data = _read_file(folder, "tokenizer.pt")
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise TokenizerFileError(
            f"{folder / 'tokenizer.pt'}: its sha256 is not the one in tokenizer.json; train it again"
        )
    config = TokenizerConfig.model_validate(record["tokenizer"])
    if expected is not None:
        _check_settings(folder, config, expected)
    tokenizer = VQMano(config)
    try:
        tokenizer.load_state_dict(load_state_dict(folder / "tokenizer.pt"))
    except (RuntimeError, WeightFileError) as error:
        reason = " ".join(str(error).split())
        raise TokenizerFileError(
            f"{folder / 'tokenizer.pt'}: its weights are not what this version expects ({reason}); train it again"
        ) from None
    return tokenizer.freeze()
