"""The JSON records of a model bundle (`models.bundle`); reading them needs neither the weights nor torch."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskhand.config import ConfigError, Recipe
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.json_text import JsonError, parse_json_object
from maskhand.models.calibration import CALIBRATION, Calibration
from maskhand.recipe_files import parse_recipe

FORMAT = 2


class BundleError(MaskhandError, ValueError):
    """A folder that is not a usable model bundle; the message names the file and what to do."""


def bundle_digest(directory: str | Path) -> str:
    """`ModelBundle.digest` of an exported model, without loading its weights. Raises BundleError."""
    return bundle_facts(directory)["digest"]


def bundle_facts(directory: str | Path) -> dict[str, str]:
    """The `digest` of an exported model, as `bundle_digest`, and the name of its `recipe`. Raises BundleError."""
    record = read_record(folder := Path(directory))
    recipe = read_recipe(folder, record["recipe"])
    calibration = read_calibration(folder, record.get("calibration"))
    return {"digest": model_digest(record["sha256"], recipe, calibration), "recipe": recipe.name}


def model_digest(weights_sha256: str, recipe: Recipe, calibration: Calibration | None) -> str:
    """12 hex digits over what determines a model's predictions."""
    sampler = json.dumps(recipe.sampler.model_dump(mode="json"), sort_keys=True)
    tolerance = "" if recipe.model.pose2d_tolerance is None else str(recipe.model.pose2d_tolerance)
    calibrated = "" if calibration is None else calibration.model_dump_json()
    return short_digest(weights_sha256 + sampler + tolerance + calibrated)


_RECORD: Mapping[str, type] = {"hand_digest": str, "sha256": str, "recipe": str, "metadata": dict}


def read_record(folder: Path) -> dict[str, Any]:
    """The fields of bundle.json, with the types of `_RECORD`."""
    record, uri = read_json(folder, "bundle.json"), folder / "bundle.json"
    if record.get("format") != FORMAT:
        raise BundleError(
            f"{uri}: bundle format {record.get('format')!r}, this version reads {FORMAT}; train the model with this "
            "version to export it again"
        )
    optional = {"calibration": str} if record.get("calibration") is not None else {}
    for name, kind in {**_RECORD, **optional}.items():
        if not isinstance(record.get(name), kind):
            found = reprlib.repr(record.get(name))
            raise BundleError(f"{uri}: {name} is {found}, expected a {kind.__name__}; copy or export the bundle again")
    return record


def read_recipe(folder: Path, digest: str) -> Recipe:
    """The recipe; BundleError unless its digest is the one in bundle.json."""
    values, uri = read_json(folder, "recipe.json"), folder / "recipe.json"
    # The digest of the file's content is `Recipe.digest` of the version that wrote it; ours may have more keys.
    if short_digest(json.dumps(values, sort_keys=True)) != digest:
        raise BundleError(
            f"{uri}: this is not the recipe that bundle.json names ({digest}): it was edited or comes from another "
            "model; copy or export the bundle again, and change inference settings by --set"
        )
    try:
        return parse_recipe(values, source=str(uri))
    except ConfigError as error:
        raise BundleError(f"{error}; the bundle was written by another version, export it again") from None


def read_calibration(folder: Path, sha256: str | None) -> Calibration | None:
    """The calibration, checked against this sha256; None if bundle.json names none."""
    if sha256 is None:
        return None
    check_sha256(folder, CALIBRATION, sha256)
    try:
        return Calibration.model_validate_json((folder / CALIBRATION).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            f"{folder / CALIBRATION}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it was written by another "
            "version, export the bundle again"
        ) from None


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in one of the bundle's files."""
    try:
        return parse_json_object(_file(folder, name).read_bytes())
    except JsonError as error:
        raise BundleError(f"{folder / name}: {error}; copy or export the bundle again") from None


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        if not folder.exists():
            raise BundleError(f"{folder}: no such model; give an exported folder, `open`, or models:/NAME@ALIAS")
        found = f"{name} is no file" if path.exists() or path.is_symlink() else f"no {name}"
        raise BundleError(
            f"{folder}: {found}; a model bundle has bundle.json, recipe.json and model.pt. Copy or export it again"
        )
    return path


def check_sha256(folder: Path, name: str, sha256: str) -> None:
    """Raises BundleError if a file's sha256 is not the recorded one."""
    if file_sha256(_file(folder, name)) != sha256:
        raise BundleError(f"{folder / name}: its sha256 is not the recorded one; copy or export the bundle again")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
