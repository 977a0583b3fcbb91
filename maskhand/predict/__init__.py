"""A photo in, hands out: `hands` finds and places them, `files` writes what people ask for."""

from maskhand.predict.files import predict_photo
from maskhand.predict.hands import DEFAULT_METHOD, predict_hands
from maskhand.predict.photo import decode_photo, read_photo
from maskhand.predict.records import Hypothesis, Method, PlacedHand, PredictedHand, PredictError

__all__ = [
    "DEFAULT_METHOD",
    "Hypothesis",
    "Method",
    "PlacedHand",
    "PredictError",
    "PredictedHand",
    "decode_photo",
    "predict_hands",
    "predict_photo",
    "read_photo",
]
