"""The Python interface of prediction: `maskhand.load().predict("photo.jpg")`. No workspace is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, overload

import torch

from maskhand.conventions import Side
from maskhand.device import accelerator
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_folder import open_model_folder
from maskhand.placement import PlacedBy
from maskhand.predict.camera import Intrinsics
from maskhand.predict.default_method import default_method
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.photo import Box
from maskhand.predict.picture_hands import Hands, PictureOptions, predict_each
from maskhand.predict.records import METHODS, Method, PredictError
from maskhand.shipped_models import OPEN
from maskhand.workspace import assets_folder

Given = str | os.PathLike[str] | bytes | Any
"""A path, an encoded file, an array (see `predict.given` for accepted types), or a PIL image."""


@dataclass(frozen=True)
class Predictor:
    """A model with its reconstruction settings; create it with `maskhand.load`."""

    reconstruction: Reconstruction
    assets: Path
    """Folder of the keypoint detector's files, which are fetched to it on first use."""

    @classmethod
    def load(
        cls, model: str | Path = OPEN, method: Method | None = None, device: str | torch.device | None = None
    ) -> Self:
        """See `maskhand.load`."""
        if method is not None and method not in METHODS:
            raise PredictError(f"method {method!r}: expected one of {', '.join(METHODS)}")
        if str(model).startswith("models:/"):
            raise PredictError(
                f"{model}: registered models are loaded by mlflow.pyfunc.load_model; give `open` or an exported folder"
            )
        method = method or default_method(None if model == OPEN else str(model))
        assets = assets_folder()
        bundle = None
        if method != "fit":
            folder = open_model_folder(assets) if model == OPEN else model
            bundle = ModelBundle.load(folder, device=device or accelerator())
        return cls(Reconstruction(bundle, method), assets)

    @overload
    def predict(
        self,
        pictures: list[Given] | tuple[Given, ...],
        *,
        box: Box | None = ...,
        side: Side | None = ...,
        focal_px: float | None = ...,
        intrinsics: Intrinsics | None = ...,
        camera: PlacedBy = ...,
        hypotheses: int = ...,
        min_confidence: float = ...,
    ) -> list[Hands]: ...

    @overload
    def predict(
        self,
        pictures: Given,
        *,
        box: Box | None = ...,
        side: Side | None = ...,
        focal_px: float | None = ...,
        intrinsics: Intrinsics | None = ...,
        camera: PlacedBy = ...,
        hypotheses: int = ...,
        min_confidence: float = ...,
    ) -> Hands: ...

    def predict(
        self,
        pictures: Any,
        *,
        box: Box | None = None,
        side: Side | None = None,
        focal_px: float | None = None,
        intrinsics: Intrinsics | None = None,
        camera: PlacedBy = "keypoints",
        hypotheses: int = 0,
        min_confidence: float = 0.0,
    ) -> Hands | list[Hands]:
        """Predict the hands of a picture, or of each picture of a list.

        pictures: a path, bytes of an image file, an array or PIL image, or a list of these. Options as in
        `maskhand predict`: box x0, y0, x1, y1 in pixels of the only hand to predict; side of every hand; focal_px or
        intrinsics fx, fy, cx, cy (default: from EXIF, else assumed, and depth is relative); camera `model` places hands
        by the network's camera; hypotheses: number of hands to sample in addition for each hand.

        Raises PredictError for a picture that cannot be used; in a list, the result of such a picture has the reason in
        `error`, and the others are predicted all the same.
        """
        reconstruction = replace(self.reconstruction, placed_by=camera, hypotheses=hypotheses)
        options = PictureOptions(box, side, focal_px, intrinsics, min_confidence)
        several = isinstance(pictures, list | tuple)
        items = list(pictures) if several else [pictures]
        named = [(_name(k, item), item) for k, item in enumerate(items)]
        results = list(predict_each(named, reconstruction, options, self.assets))
        if several:
            return results
        if results[0].error is not None:
            raise PredictError(results[0].error)
        return results[0]


def _name(position: int, picture: Given) -> str:
    """The path, or the position."""
    return os.fspath(picture) if isinstance(picture, str | os.PathLike) else f"picture {position}"
