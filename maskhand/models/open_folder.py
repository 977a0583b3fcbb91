"""The folder of the open model as a bundle; torch is imported only if the bundle has to be made."""

from __future__ import annotations

import json
from pathlib import Path

from maskhand.fetched_models import hand_models
from maskhand.shipped_models import OPEN_MODEL, open_model_digest


def open_model_folder(assets: str | Path) -> Path:
    """The folder of the open model as a bundle in the assets folder, made there when it is missing.

    Safe to call from several processes. Raises AssetError when the landmark network cannot be fetched.
    """
    target = Path(assets) / f"open_model-{open_model_digest()}"
    if not (target / "bundle.json").is_file():
        from maskhand.models.open_model import unpack  # torch, once per model

        try:
            unpack(OPEN_MODEL, hand_models(assets).landmark, target)
        except OSError:
            if not (target / "bundle.json").is_file():  # else another process has made it in the meantime
                raise
    return target


def open_hand_digest() -> str:
    """The digest of the hand model that the open model was trained with."""
    return str(json.loads((OPEN_MODEL / "bundle.json").read_text())["hand_digest"])
