"""Prediction on photos: `hands` detects and `reconstruct` reconstructs hands, `files` writes the results."""

from maskhand.predict.camera import PhotoCamera, photo_camera
from maskhand.predict.files import predict_photo
from maskhand.predict.hands import DEFAULT_METHOD, predict_hands, predict_images
from maskhand.predict.photo import decode_photo, read_photo
from maskhand.predict.reconstruct import Reconstruction, SeenImage, reconstruct_hands
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
