"""A trained model in a form that runs without this package."""

from __future__ import annotations

from pathlib import Path

from maskhand.disk import check_writable
from maskhand.export.network import export_onnx
from maskhand.models.bundle import ModelBundle
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace


def export(workspace: Workspace, model: str, folder: Path) -> list[str]:
    """Export a model to ONNX; the files, and what to know of the hand model inside."""
    check_writable(folder)
    written = export_onnx(ModelBundle.load(model_folder(workspace, model)), folder)
    return [str(written.network), str(written.facts), written.license]
