"""A photo in, hands out: `hands` finds and places them, `files` writes what people ask for."""

from maskhand.predict.files import predict_photo
from maskhand.predict.hands import predict_hands, read_photo
from maskhand.predict.records import Hypothesis, PlacedHand, PredictedHand, PredictError

__all__ = [
    "Hypothesis",
    "PlacedHand",
    "PredictError",
    "PredictedHand",
    "predict_hands",
    "predict_photo",
    "read_photo",
]
