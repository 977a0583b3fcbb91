"""The files of an exported tokenizer, `tokenizer.pt` and `tokenizer.json`: written, checked and read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from maskhand.config import Recipe, TokenizerConfig
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.json_text import JsonError, parse_json_object
from maskhand.models.vq_mano import VQMano
from maskhand.models.weight_files import WeightFileError, load_state_dict, misfit
from maskhand.shipped_models import OPEN_TOKENIZERS


class TokenizerFileError(MaskhandError, ValueError):
    """An exported tokenizer that cannot be read; the message names the file."""


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
        weights = load_state_dict(folder / "tokenizer.pt")
        wrong = misfit(tokenizer.state_dict(), weights)
    except WeightFileError as error:
        wrong = str(error)
    if wrong:
        raise TokenizerFileError(
            f"{folder / 'tokenizer.pt'}: its weights are not what this version expects ({wrong}); train it again"
        )
    tokenizer.load_state_dict(weights)
    return tokenizer.freeze()
