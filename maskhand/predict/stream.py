"""Prediction for a stream of pictures: hands are detected in each picture and reconstructed in groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from maskhand.annotate.detectors import DetectedBox
from maskhand.predict.box_formats import GivenBoxes
from maskhand.predict.detect import detect_hands
from maskhand.predict.hand_group import Reconstruction, SeenImage
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.photo import Box
from maskhand.predict.pictures import Picture
from maskhand.predict.reconstruct import HANDS_AT_ONCE, reconstruct_hands
from maskhand.predict.records import PredictedHand, PredictError

PICTURES_AT_ONCE: Final = 16
PIXELS_AT_ONCE: Final = 1 << 27
"""A group ends at one of these limits, or at `HANDS_AT_ONCE` hands, because all its images are kept in memory."""


@dataclass(frozen=True)
class PredictRequest(PredictOptions):
    """The options of a run, and the loaded model and method that it uses."""

    reconstruction: Reconstruction
    assets: Path
    """Folder of the detector's files, which are fetched to it if missing."""

    def facts(self) -> dict[str, Any]:
        """Everything that determines the results, as plain values."""
        reconstruction = self.reconstruction
        bundle = reconstruction.bundle
        model = None if bundle is None else {"digest": bundle.digest, "recipe": bundle.recipe.name}
        return self.facts_with(
            ReconstructionSettings(reconstruction.method, model, reconstruction.placed_by, reconstruction.hypotheses)
        )


def predict_pictures(
    pictures: Iterator[Picture], request: PredictRequest, boxes: Sequence[GivenBoxes | None] | None = None
) -> Iterator[list[tuple[Picture, list[PredictedHand]]]]:
    """The pictures in groups, each with its hands; unusable pictures and those without hands lose their image.

    boxes: of each source, if `request.boxes` is given. Where a group ends depends only on its own pictures.
    """
    group: list[tuple[Picture, SeenImage | None]] = []
    pixels = hands = 0
    for picture in pictures:
        group.append(_seen(picture, request, boxes))
        seen = group[-1][1]
        if seen is not None:
            pixels += seen.image_rgb.size // 3
            hands += len(seen.detected)
        if len(group) >= PICTURES_AT_ONCE or pixels >= PIXELS_AT_ONCE or hands >= HANDS_AT_ONCE:
            yield _reconstructed(group, request.reconstruction)
            group, pixels, hands = [], 0, 0
    if group:
        yield _reconstructed(group, request.reconstruction)


def _seen(
    picture: Picture, request: PredictRequest, boxes: Sequence[GivenBoxes | None] | None
) -> tuple[Picture, SeenImage | None]:
    image, camera = picture.image_rgb, picture.camera
    if image is None or camera is None:
        return picture, None
    reason: str | None = None
    try:
        of_picture: Sequence[Box | DetectedBox] | None = None if request.box is None else [request.box]
        if request.boxes is not None and boxes is not None:
            given = boxes[picture.place.source]
            of_picture = () if given is None else given.of(image)
            reason = None if of_picture else request.boxes.why_none(given)
        detected = detect_hands(
            image,
            of_picture,
            request.side,
            request.reconstruction.detector,
            request.assets,
            request.min_confidence,
            request.finder,
        )
    except PredictError as error:
        return replace(picture, image_rgb=None, is_readable=False, reason=str(error)), None
    if not len(detected):
        return replace(picture, image_rgb=None, reason=reason), None
    return picture, SeenImage(image, detected, camera)


def _reconstructed(
    group: Sequence[tuple[Picture, SeenImage | None]], reconstruction: Reconstruction
) -> list[tuple[Picture, list[PredictedHand]]]:
    hands = reconstruct_hands([seen for _, seen in group if seen is not None], reconstruction)
    return [(picture, [] if seen is None else next(hands)) for picture, seen in group]
