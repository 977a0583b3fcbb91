"""The MLflow model of a registered bundle ("model from code"): images -> a DataFrame of hands.

    model = mlflow.pyfunc.load_model("models:/maskhand@champion")
    model.predict({"image": Path("photo.jpg").read_bytes()})     # a DataFrame, a row per hand
    model.predict(pandas.DataFrame({"image": ["a.jpg", "b.png"]}), params={"vertices": True, "method": "refine"})

Needs no workspace: the keypoint detector's files are fetched to `workspace.assets_folder`.
"""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class HandPredictor(PythonModel):
    """The model. Input column `image`: an encoded image (bytes, or base64 text), its path, or an array; which arrays
    say what white is, is in `predict.given`.

    Rows, with the columns `predict.service.COLUMNS`: `input` is the position of the image, `hand` counts from 0, the
    best detection. An image that cannot be used is one row with its reason in `error`, one without hands a row of
    `status` "no hand". Parameters are `predict.service.PARAMETERS`. Of them `method` is `model`, the hands of this
    version's network, or `fit` or `refine` as in `maskhand predict`.
    """

    def load_context(self, context: Any) -> None:
        from maskhand.device import accelerator
        from maskhand.models.bundle import ModelBundle

        self._bundle = ModelBundle.load(context.artifacts["bundle"], device=accelerator())
        _refuse_unknown_parameters()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        from maskhand.predict.service import COLUMNS, answer
        from maskhand.workspace import assets_folder

        rows = answer(list(model_input["image"]), params, self._bundle, assets_folder())
        return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)  # of objects: None and whole numbers stay so


class _UnknownParameters(logging.Filter):
    """Makes an error of MLflow's line about parameters that it leaves out before it calls the model: with a misspelled
    `focal_px` the answer would be another one than was asked for."""

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__()
        self._known = known

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if said.startswith("Unrecognized params") and all(f"'{name}'" in said for name in self._known):
            unknown = said.partition("[")[2].partition("]")[0]
            raise ValueError(f"params: {unknown} unknown; expected {', '.join(self._known)}")
        return True


def _refuse_unknown_parameters() -> None:
    from maskhand.predict.service import PARAMETERS

    logger = logging.getLogger("mlflow.models.utils")
    if not any(type(known).__name__ == _UnknownParameters.__name__ for known in logger.filters):
        logger.addFilter(_UnknownParameters(tuple(PARAMETERS)))


set_model(HandPredictor())
