"""Prediction on photos: `hands` detects and `reconstruct` reconstructs hands, `files` writes the results.

The names below are imported on first use: modules that need no torch (`options`, `inputs`, `run_files`) can then be
imported without waiting seconds for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from maskhand.predict.camera import PhotoCamera, photo_camera
    from maskhand.predict.files import predict_photo
    from maskhand.predict.hand_group import Reconstruction, SeenImage
    from maskhand.predict.hands import DEFAULT_METHOD, predict_hands, predict_images
    from maskhand.predict.photo import decode_photo, read_photo
    from maskhand.predict.reconstruct import reconstruct_hands
    from maskhand.predict.records import METHODS, Hypothesis, Method, PlacedHand, PredictedHand, PredictError

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "Hypothesis",
    "Method",
    "PhotoCamera",
    "PlacedHand",
    "PredictError",
    "PredictedHand",
    "Reconstruction",
    "SeenImage",
    "decode_photo",
    "photo_camera",
    "predict_hands",
    "predict_images",
    "predict_photo",
    "read_photo",
    "reconstruct_hands",
]

_HOMES: Final = {
    "camera": ("PhotoCamera", "photo_camera"),
    "files": ("predict_photo",),
    "hand_group": ("Reconstruction", "SeenImage"),
    "hands": ("DEFAULT_METHOD", "predict_hands", "predict_images"),
    "photo": ("decode_photo", "read_photo"),
    "reconstruct": ("reconstruct_hands",),
    "records": ("METHODS", "Hypothesis", "Method", "PlacedHand", "PredictedHand", "PredictError"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
