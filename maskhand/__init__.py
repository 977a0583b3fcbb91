"""maskhand: generative masked modeling of 3D hand meshes from single images (MaskHand, ICCV 2025).

import maskhand
predictor = maskhand.load()
hands = predictor.predict("photo.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from maskhand.predict.predictor import Predictor
    from maskhand.predict.records import Method

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def load(model: str | Path = "open", method: Method | None = None, device: str | None = None) -> Predictor:
    """What finds and reconstructs the hands of pictures; load it once.

    model: `open`, the one that ships, or an exported folder. method: `fit`, `model` or `refine` as in `maskhand
    predict`; None: `refine` (a fit where the open model does not know the hand model in use). device: None is the GPU
    where there is one.
    """
    from maskhand.predict.predictor import Predictor

    return Predictor.load(model, method, device)
