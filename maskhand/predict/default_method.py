"""The method of a question that names none."""

from __future__ import annotations

from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.models.open_folder import open_hand_digest
from maskhand.predict.records import Method


def default_method(model: str | None) -> Method:
    """model: None is the open one. A fit where that does not know the hand model in use."""
    other_hand = model is None and load_hand_model(default_hand_path("right")).digest != open_hand_digest()
    return "fit" if other_hand else "refine"
