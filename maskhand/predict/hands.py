"""Prediction of the hands of images: detection in each image, then reconstruction of all hands in batches.

Left hands are mirrored for reconstruction and returned as left hands: mesh, joints, MANO parameters (of a left model
that mirrors the right one) and camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from maskhand.annotate.detectors import DetectedBox, HandDetector
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.models.bundle import ModelBundle
from maskhand.placement import PlacedBy
from maskhand.predict.camera import PhotoCamera, checked_camera, photo_camera
from maskhand.predict.detect import detect_hands
from maskhand.predict.hand_group import Reconstruction, SeenImage
from maskhand.predict.photo import Box
from maskhand.predict.reconstruct import reconstruct_hands
from maskhand.predict.records import Method, PredictedHand, PredictError
from maskhand.workspace import Workspace

DEFAULT_METHOD: Method = "fit"
"""The most accurate method that needs no network, see docs/evaluation.md."""

T = TypeVar("T")


def predict_hands(
    image_rgb: Array,
    bundle: ModelBundle | None,
    boxes_xyxy_px: Sequence[Box | DetectedBox] | Array | None = None,
    side: Side | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    focal_px: float | None = None,
    K_px: PhotoCamera | Array | None = None,
    camera: PlacedBy = "keypoints",
    hypotheses: int = 0,
    fill_in: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
) -> list[PredictedHand]:
    """Predict the hands of an image (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    Like `predict_images`, for one image. focal_px: its focal length, with the principal point in the middle; K_px: its
    camera, ignored if a focal length is given; camera: `placed_by` of `predict_images`.
    """
    size_px = image_rgb.shape[1], image_rgb.shape[0]
    (hands,) = predict_images(
        [image_rgb],
        bundle,
        [boxes_xyxy_px],
        [side],
        method=method,
        cameras=[K_px if focal_px is None else photo_camera(size_px, focal_px=focal_px)],
        placed_by=camera,
        hypotheses=hypotheses,
        fill_in=fill_in,
        min_confidence=min_confidence,
        finder=finder,
        assets=assets,
    )
    return hands


def predict_images(
    images: Sequence[Array],
    bundle: ModelBundle | None,
    boxes: Sequence[Sequence[Box | DetectedBox] | Array | None] | None = None,
    sides: Sequence[Side | None] | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    cameras: Sequence[PhotoCamera | Array | None] | None = None,
    placed_by: PlacedBy = "keypoints",
    hypotheses: int = 0,
    fill_in: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
) -> list[list[PredictedHand]]:
    """Predict the hands of images (H, W, 3) uint8 RGB: a list per image, best detection first, empty without hands.

    boxes: the hand boxes of each image, x0, y0, x1, y1 in pixels, or `DetectedBox`es with sides and scores; None (also
    for single images): all hands are detected, by `finder` or by default by the embedded one. sides: the side of each
    image's hands; None: as detected. cameras: (3, 3) intrinsics of each image in pixels, or a `PhotoCamera` (see
    `photo_camera`); None: HaMeR's long focal length is assumed and depth is relative.

    method: `fit` finds the most probable hand for the detected keypoints and needs no network (`bundle` may be None);
    `model` is the network's prediction; `refine` is a fit that uses the network's prediction as evidence too.
    placed_by: `model` places the hands by the network's camera, `keypoints` by the 2D keypoints (by the network's
    camera when too few are detected). hypotheses: number of samples for each hand, from the same encoding
    (`hypothesis_sampler`). fill_in: number of decoding iterations T whose states are returned for visualization
    (`models.fill_in`). min_confidence: hands with a smaller mean keypoint confidence are left out.

    Hands of several images share a batch without affecting each other's results (`predict.reconstruct`). Raises
    PredictError, BundleError when the model reads captions.
    """
    reconstruction = Reconstruction(bundle, method, placed_by, hypotheses, fill_in)
    folder = Workspace.at().assets if assets is None else Path(assets)
    of_each = [_of_each(values, len(images), name) for name, values in (("boxes", boxes), ("cameras", cameras))]
    side_of_each = _of_each(sides, len(images), "sides")

    def seen() -> Iterator[SeenImage]:
        for image, box, camera, side in zip(images, *of_each, side_of_each, strict=True):
            detected = detect_hands(image, box, side, reconstruction.detector, folder, min_confidence, finder)
            yield SeenImage(image, detected, checked_camera((image.shape[1], image.shape[0]), camera))

    return list(reconstruct_hands(seen(), reconstruction))


def _of_each(values: Sequence[T | None] | None, images: int, name: str) -> Sequence[T | None]:
    if values is None:
        return [None] * images
    if len(values) != images:
        raise PredictError(
            f"{name}: expected one for each of the {images} images (None where unknown), got {len(values)}"
        )
    return values
