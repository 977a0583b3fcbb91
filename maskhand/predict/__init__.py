"""A photo in, hands out: `hands` finds and places them, `files` writes what people ask for."""

from maskhand.predict.files import predict_photo
from maskhand.predict.hands import decode_photo, predict_hands, read_photo
from maskhand.predict.records import Hypothesis, PlacedHand, PredictedHand, PredictError

__all__ = [
    "Hypothesis",
    "PlacedHand",
    "PredictError",
    "PredictedHand",
    "decode_photo",
    "predict_hands",
    "predict_photo",
    "read_photo",
]
