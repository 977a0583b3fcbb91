"""Prediction for pictures passed from Python: one result per picture, also for pictures that cannot be read."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.predict.camera import PhotoCamera, check_given, photo_camera
from maskhand.predict.detect import DetectedHands, detect_hands
from maskhand.predict.drawing import draw_hands
from maskhand.predict.files import no_hand_found, write_picture_files
from maskhand.predict.given import read_picture
from maskhand.predict.hand_group import Reconstruction, SeenImage
from maskhand.predict.photo import Box
from maskhand.predict.reconstruct import reconstruct_hands
from maskhand.predict.records import PredictedHand, PredictError
from maskhand.predict.rows import SCHEMA, Row, hand_row
from maskhand.predict.saved import SAVED, Saved
from maskhand.render import jpeg_url

PICTURES_AT_ONCE: Final = 16
"""Maximum number of pictures whose hands share batches; so many are in memory."""
CAMERA_FORM: Final = "fx, fy, cx, cy"
SHOWN_PX: Final = 1024
"""Maximum of the longer side of the overlay in a notebook."""


@dataclass(frozen=True)
class PictureOptions:
    """The options that apply to all pictures of a call."""

    box: Box | None = None
    """x0, y0, x1, y1 in pixels of the only hand to predict in each picture; None: all hands are detected."""
    side: Side | None = None
    """Of every hand; None: as detected."""
    focal_px: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels. If both are None: from EXIF, else a long focal length is assumed, depth is relative."""
    min_confidence: float = 0.0
    """Hands whose keypoints have a smaller mean confidence are left out."""

    def __post_init__(self) -> None:
        """Raises PredictError for values that are invalid for any picture."""
        check_given((1, 1), self.focal_px, None)
        if self.focal_px is not None and self.intrinsics is not None:
            raise PredictError("both focal_px and intrinsics are given; intrinsics hold the focal lengths, give one")
        for name, numbers, form in (("box", self.box, "x0, y0, x1, y1"), ("intrinsics", self.intrinsics, CAMERA_FORM)):
            if numbers is not None and not (len(numbers) == 4 and np.isfinite(numbers).all()):
                raise PredictError(f"{name} {list(numbers)}: expected four numbers {form} in pixels")
        if self.side not in (None, *get_args(Side)):
            raise PredictError(f"side {self.side!r}: expected one of {', '.join(get_args(Side))}")
        if not 0 <= self.min_confidence <= 1:
            raise PredictError(f"min_confidence {self.min_confidence!r}: expected 0 to 1")


@dataclass(frozen=True, repr=False, eq=False)
class Hands(Sequence[PredictedHand]):
    """The hands of a picture, best detection first: `hands[0].vertices_cam_m`. A notebook displays it as an overlay."""

    name: str
    """The picture's name: its path, or its position among the given pictures."""
    path: str | None
    image_rgb: Array | None
    """(H, W, 3) uint8, upright; None for a picture that cannot be used."""
    camera: PhotoCamera | None
    hands: tuple[PredictedHand, ...]
    reconstruction: Reconstruction
    error: str | None = None
    """Why the picture cannot be used."""
    reason: str | None = None
    """Why there are no hands."""

    def __len__(self) -> int:
        return len(self.hands)

    def __getitem__(self, index: Any) -> Any:
        return self.hands[index]

    def __repr__(self) -> str:
        lines = [_line(k, hand) for k, hand in enumerate(self.hands)] or [self.error or self.reason or ""]
        return "\n  ".join([f"Hands of {self.name}", *lines])

    def overlay(self) -> Array:
        """(H, W, 3) uint8: the picture with its hands, drawn with a longer side of 480 to 2048 px.

        Raises PredictError for a picture that cannot be used.
        """
        if self.image_rgb is None:
            raise PredictError(str(self.error))
        return draw_hands(self.image_rgb, self.hands) if self.hands else self.image_rgb

    def save(self, folder: str | Path, saved: Sequence[Saved] = SAVED) -> list[Path]:
        """Write overlay, meshes and JSON as `maskhand predict` does; no files for a picture without hands."""
        if self.image_rgb is None or not self.hands:
            return []
        stem = "picture" if self.path is None else Path(self.path).stem
        return write_picture_files(
            self.name, self.image_rgb, self.hands, self.reconstruction, Path(folder), stem, saved
        )

    def rows(self, vertices: bool = False) -> list[Row]:
        """A row for each hand as in hands.jsonl; without hands, one row with the reason."""
        size = None if self.image_rgb is None else [self.image_rgb.shape[1], self.image_rgb.shape[0]]
        head: Row = {"schema": SCHEMA, "picture": self.path, "image_size_px": size}
        if self.camera is None:
            return [head | {"status": "unreadable", "reason": self.error}]
        if not self.hands:
            return [head | {"status": "no hand", "reason": self.reason}]
        return [
            head | {"status": "hand", "hand": k} | hand_row(hand, self.reconstruction, vertices)
            for k, hand in enumerate(self.hands)
        ]

    def _repr_html_(self) -> str:
        """The overlay and a line for each hand."""
        name = html.escape(self.name)
        if self.image_rgb is None:
            return f"<p>{html.escape(str(self.error))}</p>"
        lines = [_line(k, hand) for k, hand in enumerate(self.hands)] or [self.reason or ""]
        url = jpeg_url(_reduced(self.overlay()))
        shown = f'<img alt="{name}" style="max-width:100%" src="{url}">'
        return f"<figure>{shown}<figcaption>{name}<br>{'<br>'.join(map(html.escape, lines))}</figcaption></figure>"


def predict_each(
    pictures: Sequence[tuple[str, Any]],
    reconstruction: Reconstruction,
    options: PictureOptions,
    assets: Path,
    base64_text: bool = False,
) -> Iterator[Hands]:
    """Predict the hands of pictures, given as (name, input of `read_picture`), in order.

    For a picture that cannot be used `error` has the reason; the others are predicted all the same.
    """
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        group = pictures[start : start + PICTURES_AT_ONCE]
        results = [_detect(name, value, reconstruction, options, assets, base64_text) for name, value in group]
        seen = [
            SeenImage(given.image_rgb, detected, given.camera)
            for given, detected in results
            if given.image_rgb is not None and given.camera is not None and detected is not None
        ]
        hands = reconstruct_hands(seen, reconstruction)
        yield from (
            given if detected is None else replace(given, hands=tuple(next(hands))) for given, detected in results
        )


def _detect(
    name: str, value: Any, reconstruction: Reconstruction, options: PictureOptions, assets: Path, base64_text: bool
) -> tuple[Hands, DetectedHands | None]:
    """The result, still without hands, and the detected hands to reconstruct, if any."""
    try:
        given = read_picture(value, name, base64_text)
        image = given.image_rgb
        camera = photo_camera(
            (image.shape[1], image.shape[0]),
            focal_px=options.focal_px,
            intrinsics=options.intrinsics,
            encoded=given.encoded,
        )
        boxes = None if options.box is None else [options.box]
        detected = detect_hands(image, boxes, options.side, reconstruction.detector, assets, options.min_confidence)
    except PredictError as error:
        reason = str(error)
        message = reason if name in reason else f"{name}: {reason}"
        return Hands(name, None, None, None, (), reconstruction, message), None
    result = Hands(name, given.path, image, camera, (), reconstruction)
    if not len(detected):
        return replace(result, reason=no_hand_found(options.min_confidence)), None
    return result, detected


def _line(number: int, hand: PredictedHand) -> str:
    side = hand.side if hand.side_known else "side unknown"
    known = bool(np.isfinite(hand.joint_error_mm).all()) and not hand.is_guess
    error = f", joints expected {hand.joint_error_mm.mean():.0f} mm off" if known else ""
    return f"hand {number}: {side}" + (", a guess" if hand.is_guess else error)


def _reduced(image_rgb: Array) -> Array:
    scale = SHOWN_PX / max(image_rgb.shape[:2])
    if scale >= 1:
        return image_rgb
    size = [max(1, round(n * scale)) for n in (image_rgb.shape[1], image_rgb.shape[0])]
    return cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
