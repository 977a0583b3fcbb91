"""Hands that a text calls for, by a trained model."""

from __future__ import annotations

from pathlib import Path

from maskhand.device import accelerator
from maskhand.disk import check_writable
from maskhand.generate import generate_files
from maskhand.models.bundle import ModelBundle
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace


def generate(workspace: Workspace, text: str, out: Path, model: str, count: int, seed: int) -> list[Path]:
    """Hands that a text calls for, as meshes, image and JSON in folder `out` (see `generate_files`)."""
    check_writable(out)
    folder = model_folder(workspace, model, "run train-maskhand -p recipe=tiny_text")
    bundle = ModelBundle.load(folder, device=accelerator())
    return generate_files(bundle, text, out, count, seed)
