"""The camera intrinsics of a photo: given, or from EXIF's 35 mm equivalent focal length, or assumed.

EXIF's `FocalLengthIn35mmFilm` is the focal length with the same field of view on a frame of 36 x 24 mm. Frames of other
aspect ratios are compared by their diagonals, as CIPA DCG-001 specifies: the focal length in pixels is that length
over 43.27 mm, times the picture's diagonal in pixels. This is still right after the picture was resized or rotated, but
not after it was cropped; if its aspect ratio differs from that of the size in EXIF, the EXIF focal length is ignored.
Given values are for the upright picture, after EXIF's orientation is applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import ExifTags

from maskhand.arrays import Array
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.predict.decode import exif_of
from maskhand.predict.records import CameraOrigin, PredictError

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy: pixels of the upright photo, the center of the top-left pixel is (0, 0)."""

FILM_DIAGONAL_MM: Final = math.hypot(36, 24)
FILM_FOCALS_MM: Final = (5.0, 3000.0)
"""Range of real lenses; other values in EXIF are ignored."""
FOCALS_TO_SIDE: Final = (0.1, 1000.0)
"""Focal lengths in longer sides of a picture: a fisheye, and a tenth of the frame behind a telescope."""
SAME_SHAPE: Final = 0.02
"""Largest relative difference between the picture's and EXIF's aspect ratios; rounding of sizes causes less."""


@dataclass(frozen=True)
class PhotoCamera:
    """The intrinsics of a photo."""

    K_px: Array
    """(3, 3) float64, pixels of the upright photo; the center of the top-left pixel is (0, 0)."""
    origin: CameraOrigin


def photo_camera(
    size_px: tuple[int, int],
    *,
    focal_px: float | None = None,
    intrinsics: Intrinsics | None = None,
    encoded: bytes = b"",
) -> PhotoCamera:
    """The camera of an upright photo of (width, height).

    From focal_px, or intrinsics fx, fy, cx, cy, in pixels if given; else from the EXIF 35 mm focal length in encoded,
    the bytes of the photo's file; else HaMeR's long focal length is assumed. Raises PredictError for impossible values.
    """
    check_given(size_px, focal_px, intrinsics)
    if focal_px is not None:
        _check_view(f"focal length {focal_px:g}", size_px, focal_px)
        return PhotoCamera(assumed_camera(size_px, focal_px), "focal")
    if intrinsics is not None:
        fx, fy, cx, cy = intrinsics
        for focal in (fx, fy):
            _check_view(f"intrinsics {fx:g},{fy:g},{cx:g},{cy:g}", size_px, focal)
        return PhotoCamera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64), "intrinsics")
    focal_px = exif_focal_px(size_px, encoded) if encoded else None
    return PhotoCamera(assumed_camera(size_px, focal_px), "assumed" if focal_px is None else "exif")


def check_given(size_px: tuple[int, int], focal_px: float | None, intrinsics: Intrinsics | None) -> None:
    """PredictError for what no picture of at most (width, height) has."""
    if focal_px is not None and intrinsics is not None:
        raise PredictError("both a focal length and intrinsics are given; intrinsics hold the focal lengths, give one")
    if focal_px is not None and not (math.isfinite(focal_px) and focal_px > 0):
        raise PredictError(f"focal length {focal_px!r}: expected a positive number of pixels")
    if intrinsics is not None:
        _check_intrinsics(size_px, intrinsics)


def _check_view(said: str, size_px: tuple[int, int], focal_px: float) -> None:
    """PredictError for a focal length that no lens has before a picture of this size, even a part of a larger one."""
    least, most = (times * max(size_px) for times in FOCALS_TO_SIDE)
    if not least <= focal_px <= most:
        raise PredictError(
            f"{said}: expected {least:.0f} to {most:.0f} pixels for a {size_px[0]} x {size_px[1]} picture; is it in "
            "millimeters, or of another picture?"
        )


def checked_camera(size_px: tuple[int, int], camera: PhotoCamera | Array | None) -> PhotoCamera:
    """The `PhotoCamera` of an image (width, height), from one, from (3, 3) intrinsics, or assumed for None.

    Raises PredictError for an invalid intrinsics matrix.
    """
    if camera is None or isinstance(camera, PhotoCamera):
        return camera or photo_camera(size_px)
    K = np.asarray(camera, np.float64)
    good = K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0
    if not (good and np.array_equal(K[2], [0, 0, 1]) and K[0, 1] == K[1, 0] == 0):
        raise PredictError(
            f"camera {np.asarray(camera).tolist()}: expected a (3, 3) matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in "
            "pixels with fx, fy > 0"
        )
    return photo_camera(size_px, intrinsics=(K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def exif_focal_px(size_px: tuple[int, int], encoded: bytes) -> float | None:
    """The focal length in pixels of a photo (width, height) from its EXIF, see above; None if it has no usable one."""
    entries = exif_of(encoded).get_ifd(ExifTags.IFD.Exif)
    film_mm = _number(entries.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if film_mm is None or not FILM_FOCALS_MM[0] <= film_mm <= FILM_FOCALS_MM[1]:
        return None
    stored = [_number(entries.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    width, height = stored
    if width and height:
        # longer side over shorter side: programs that rotate a picture may leave the EXIF size as it was
        told, is_now = (max(size) / min(size) for size in ((width, height), size_px))
        if abs(told / is_now - 1) > SAME_SHAPE:
            return None
    return film_mm / FILM_DIAGONAL_MM * math.hypot(*size_px)


def _check_intrinsics(size_px: tuple[int, int], intrinsics: Intrinsics) -> None:
    fx, fy, cx, cy = intrinsics
    said = f"intrinsics {fx:g},{fy:g},{cx:g},{cy:g}"
    if not all(map(math.isfinite, intrinsics)) or fx <= 0 or fy <= 0:
        raise PredictError(f"{said}: expected fx,fy,cx,cy in pixels, the first two above 0")
    width, height = size_px
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise PredictError(
            f"{said}: the principal point is far outside of the {width} x {height} photo; are they for another size?"
        )


def _number(value: object) -> float | None:
    """An EXIF value as a number; None if it is not a finite number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
