"""The exported folder of a model, by the names that people give it; without torch where it is there."""

from __future__ import annotations

from pathlib import Path

from maskhand.config import Recipe
from maskhand.models.bundle_records import read_recipe, read_record
from maskhand.models.open_folder import open_model_folder
from maskhand.shipped_models import OPEN
from maskhand.steps.names import BUNDLE_FILE
from maskhand.tracking import Tracker
from maskhand.workspace import Workspace


def model_folder(workspace: Workspace, model: str, training: str = "quickstart") -> str:
    """The exported folder of a model: a path as it is, `models:/NAME@ALIAS` fetched from the registry, `open` the model
    that ships.

    training: the subcommand that makes a model of this kind, named by the LookupError where there is none.
    """
    if model == OPEN:
        return str(open_model_folder(workspace.assets))
    if not model.startswith("models:/"):
        return model

    try:
        return str(Tracker.of(workspace).bundle_folder(model))
    except LookupError as error:
        trained = sorted(workspace.runs.glob(f"transformer-*/export*/{BUNDLE_FILE}"), key=lambda p: p.stat().st_mtime)
        newest = f". The newest training here is --model {trained[-1].parent}" if trained else ""
        raise LookupError(f"{error}. `maskhand {training}` trains one, measures it and registers it{newest}") from None


def lasting_name(workspace: Workspace, model: str) -> str:
    """A name that means the same model tomorrow: the version in place of an alias, a path as it is."""
    if "@" not in model or not model.startswith("models:/"):
        return model

    return Tracker.of(workspace).resolve(model).uri


def exported_recipe(folder: str | Path) -> Recipe:
    """The recipe of an exported model. Raises BundleError."""
    return read_recipe(Path(folder), read_record(Path(folder))["recipe"])
