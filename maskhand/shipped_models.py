"""Where the trained models that ship with the package are, and what they are called."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_MODELS = Path(__file__).parent / "models"

OPEN: Final = "open"
"""What users call the open model where a model, or the weights of its encoder, are asked for."""
OPEN_MODEL: Final = _MODELS / "open_model"
OPEN_WEIGHTS: Final = OPEN_MODEL / "weights.pt"
OPEN_TOKENIZERS: Final = {"open": _MODELS / "open_tokenizer", "open_model": OPEN_MODEL / "tokenizer"}
"""The trained VQ-MANOs, by the recipe whose settings they have."""


def open_model_digest() -> str:
    """12 hex digits over the open model: another calibration of the same weights is another model."""
    digest = hashlib.sha256()
    for path in (*sorted(OPEN_MODEL.glob("*.json")), OPEN_WEIGHTS):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
