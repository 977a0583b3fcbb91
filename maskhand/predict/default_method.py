"""The default reconstruction method."""

from __future__ import annotations

from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.models.open_folder import open_hand_digest
from maskhand.predict.records import Method


def default_method(model: str | None) -> Method:
    """model: None is the open model. `fit` if that was trained with another hand model than the one in use."""
    other_hand = model is None and load_hand_model(default_hand_path("right")).digest != open_hand_digest()
    return "fit" if other_hand else "refine"
