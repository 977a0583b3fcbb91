"""The MLflow model of a registered bundle ("model from code"): images -> a DataFrame of hands.

    model = mlflow.pyfunc.load_model("models:/maskhand@champion")
    model.predict({"image": Path("photo.jpg").read_bytes()})     # a DataFrame, a row per hand
    model.predict(pandas.DataFrame({"image": ["a.jpg", "b.png"]}), params={"vertices": True, "method": "refine"})

Of the workspace it needs only the keypoint detector's files, which are fetched into `$MASKHAND_WORKSPACE/assets`.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class HandPredictor(PythonModel):
    """The model. Input column `image`: an encoded image (bytes, or base64 text), its path, or (H, W, 3) uint8 RGB.

    Rows: `input` (position of the image), `hand` (0 = best detection), side, box_xyxy_px (4), pose_aa (16 x 3
    absolute MANO axis-angle, global orientation first), betas (10), transl_cam_m (3), joints_cam_m (21 x 3, OpenPose
    order), joints_px (21 x 2), K_px (3 x 3, with an assumed focal length), p_within_10mm (21) and joint_error_mm (21)
    after alignment (NaN where the model is not calibrated), guess (its keypoints have low confidence); with the
    parameter `vertices` also vertices_cam_m (778 x 3). The parameter `method` is `model`, the hands of this version's
    network, or `fit` or `refine` as in `maskhand predict`.
    """

    def load_context(self, context: Any) -> None:
        from maskhand.device import accelerator
        from maskhand.models.bundle import ModelBundle

        self._bundle = ModelBundle.load(context.artifacts["bundle"], device=accelerator())

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        from maskhand.predict import METHODS, predict_hands

        params = params or {}
        method = params.get("method", "model")
        if method not in METHODS:
            raise ValueError(f"params: method is {method!r}; expected one of {', '.join(METHODS)}")
        arrays = _ARRAYS + (("vertices_cam_m",) if params.get("vertices") else ())
        rows = []
        for position, image in enumerate(model_input["image"]):
            for rank, hand in enumerate(predict_hands(_decoded(image, position), self._bundle, method=method)):
                row: dict[str, Any] = {"input": position, "hand": rank, "guess": hand.is_guess}
                row["side"] = hand.side if hand.side_known else None
                rows.append(row | {name: np.asarray(getattr(hand, name), np.float64).tolist() for name in arrays})
        return pd.DataFrame(rows, columns=None if rows else ["input", "hand", "guess", "side", *arrays])


_ARRAYS = (
    "box_xyxy_px",
    "pose_aa",
    "betas",
    "transl_cam_m",
    "joints_cam_m",
    "joints_px",
    "K_px",
    "p_within_10mm",
    "joint_error_mm",
)


def _decoded(image: Any, position: int) -> np.ndarray:
    """Decode one cell to (H, W, 3) uint8 RGB; ValueError names its position."""
    from maskhand.predict import decode_photo

    if isinstance(image, np.ndarray | list):
        pixels = np.asarray(image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError(f"image {position}: an array must be (H, W, 3) RGB in 0..255, this one is {pixels.shape}")
        return np.ascontiguousarray(pixels.astype(np.uint8))
    if isinstance(image, str) and len(image) < 4096 and Path(image).is_file():
        image = Path(image).read_bytes()
    elif isinstance(image, str):
        try:
            image = base64.b64decode(image, validate=True)
        except binascii.Error:
            raise ValueError(f"image {position}: {image[:80]!r} is neither a file nor base64") from None
    return decode_photo(image, f"image {position}")


set_model(HandPredictor())
