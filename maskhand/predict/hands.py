"""Prediction of the hands of images: detection in each, then reconstruction of all together.

Left hands are reconstructed mirrored and returned as left hands: mesh, joints, MANO parameters (of a left model that is
the mirror of the right one) and camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from maskhand.annotate.detectors import DetectedBox, HandDetector
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.models.bundle import ModelBundle
from maskhand.placement import CameraSource
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
    camera: CameraSource = "keypoints",
    hypotheses: int = 0,
    fill_in: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
) -> list[PredictedHand]:
    """Predict the hands of an image (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    As `predict_images` of one image. focal_px: its focal length, the principal point is its middle; K_px: its camera,
    where no focal length is given; camera: `placed_by` there.
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
    placed_by: CameraSource = "keypoints",
    hypotheses: int = 0,
    fill_in: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
) -> list[list[PredictedHand]]:
    """Predict the hands of images (H, W, 3) uint8 RGB: a list for each, the best first, empty where there is none.

    boxes: of each image those of its hands, x0, y0, x1, y1 in pixels, or with their sides and scores; None, also for
    one image: all hands are found, by `finder` or else by the embedded one. sides: of the hands of each image; None: as
    detected. cameras: (3, 3) intrinsics of each image in pixels, or what `photo_camera` made of its file; None: a long
    focal length is assumed, as HaMeR does, and depth is relative.

    method: `fit` finds the most probable hand for the detected keypoints and needs no network (`bundle` may be None);
    `model` is the network's hand; `refine` is a fit for which the network's hand is evidence too. placed_by: `model`
    places the hands by the network's camera, `keypoints` by the 2D keypoints (by the network's camera when too few are
    detected). hypotheses: number of hands sampled for each one, from the same encoding (`hypothesis_sampler`). fill_in:
    iterations T of decoding that are kept to look at (`models.fill_in`). min_confidence: hands with a smaller mean
    confidence of keypoints are left out.

    Hands of several images share a batch, and none changes another's result (`predict.reconstruct`). Raises
    PredictError, BundleError when the model reads captions.
    """
    how = Reconstruction(bundle, method, placed_by, hypotheses, fill_in)
    folder = Workspace.at().assets if assets is None else Path(assets)
    of_each = [_of_each(values, len(images), name) for name, values in (("boxes", boxes), ("cameras", cameras))]
    side_of_each = _of_each(sides, len(images), "sides")

    def seen() -> Iterator[SeenImage]:
        for image, box, camera, side in zip(images, *of_each, side_of_each, strict=True):
            detected = detect_hands(image, box, side, how.detector, folder, min_confidence, finder)
            yield SeenImage(image, detected, checked_camera((image.shape[1], image.shape[0]), camera))

    return list(reconstruct_hands(seen(), how))


def _of_each(values: Sequence[T | None] | None, images: int, name: str) -> Sequence[T | None]:
    if values is None:
        return [None] * images
    if len(values) != images:
        raise PredictError(
            f"{name}: expected one for each of the {images} images (None where unknown), got {len(values)}"
        )
    return values
