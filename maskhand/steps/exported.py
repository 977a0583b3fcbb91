"""What follows a training: the exported weights with the recipe's inference settings, and their calibration."""

from __future__ import annotations

import logging
from pathlib import Path

from maskhand.config import Recipe
from maskhand.device import accelerator
from maskhand.evaluation.calibrate import FEWEST_HANDS, calibrate
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import read_record
from maskhand.steps import training_checks
from maskhand.steps.models import exported_recipe
from maskhand.steps.names import BUNDLE_FILE
from maskhand.training.run_identity import inference_digest
from maskhand.workspace import Workspace


def with_settings(export: Path, recipe: Recipe) -> Path:
    """The exported model; if the recipe has other inference settings than it, the same weights with these, in a folder
    beside it."""
    held, wanted = exported_recipe(export), inference_digest(recipe)
    if inference_digest(held) == wanted:
        return export
    stated_anew = export.with_name(f"{export.name}-{wanted}")
    if not (stated_anew / BUNDLE_FILE).exists():
        ModelBundle.with_inference_settings(export, stated_anew, recipe)
    return stated_anew


def calibrate_export(export: Path, recipe: Recipe, workspace: Workspace) -> None:
    """Calibrate the model in `export` on the held-out hands of its training, unless it is calibrated."""
    if "calibration" in read_record(export):
        return
    bundle = ModelBundle.load(export, device=accelerator())
    found = calibrate(bundle, training_checks.training_sets(workspace, recipe))
    if found is not None:
        bundle.calibrate(export, found)
    elif recipe.model.condition == "image" and recipe.model.decoder == "masked":
        logging.getLogger(__name__).warning(
            f"recipe {recipe.name}: fewer than {FEWEST_HANDS} hands with 3D joints were held out (data.held_out="
            f"{recipe.data.held_out:g}), so its confidence is not calibrated and hands are made as sampler says"
        )
