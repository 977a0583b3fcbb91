"""The camera of a photo: given, or from EXIF's 35 mm length, or assumed.

EXIF's `FocalLengthIn35mmFilm` is the length that would show as much on a frame of 36 x 24 mm. Frames of other shapes
are compared by their diagonals, as CIPA's rule for cameras asks (DCG-001): the focal length in pixels is that length
over 43.27 mm, times the picture's diagonal in pixels. So it holds for a picture that was made smaller, and whichever
way it is turned, but not for one that was cut: that shows by a shape other than the one EXIF tells, and then EXIF is
not believed. Given values are those of the picture as it is shown, after EXIF's orientation.
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
"""Of lenses that are made; other values in EXIF are no lengths."""
SAME_SHAPE: Final = 0.02
"""Relative difference of aspects below which a picture has the shape that EXIF tells; rounded sizes differ by less."""


@dataclass(frozen=True)
class PhotoCamera:
    """The intrinsics of a photo."""

    K_px: Array
    """(3, 3) float64, pixels of the upright photo; the center of the top-left pixel is (0, 0)."""
    origin: CameraOrigin

    @property
    def is_known(self) -> bool:
        """Whether depths are metric, as far as the hand's size is."""
        return self.origin != "assumed"


def photo_camera(
    size_px: tuple[int, int],
    *,
    focal_px: float | None = None,
    intrinsics: Intrinsics | None = None,
    encoded: bytes = b"",
) -> PhotoCamera:
    """The camera of an upright photo of (width, height).

    focal_px, or intrinsics fx, fy, cx, cy in pixels: as given; else encoded, the photo's file, is asked for EXIF's
    35 mm length; else HaMeR's long focal length is assumed. Raises PredictError for values that no camera has.
    """
    if focal_px is not None and intrinsics is not None:
        raise PredictError("both a focal length and intrinsics are given; intrinsics hold the focal lengths, give one")
    if focal_px is not None:
        if not (math.isfinite(focal_px) and focal_px > 0):
            raise PredictError(f"focal length {focal_px!r}: expected a positive number of pixels")
        return PhotoCamera(assumed_camera(size_px, focal_px), "focal")
    if intrinsics is not None:
        return PhotoCamera(_given(size_px, intrinsics), "intrinsics")
    focal_px = exif_focal_px(size_px, encoded) if encoded else None
    return PhotoCamera(assumed_camera(size_px, focal_px), "assumed" if focal_px is None else "exif")


def checked_camera(size_px: tuple[int, int], camera: PhotoCamera | Array | None) -> PhotoCamera:
    """The camera of an image (width, height): as it is, by its (3, 3) intrinsics, or assumed.

    Raises PredictError for a matrix that no camera has.
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
    """The focal length of a photo (width, height) in pixels by its EXIF, see above; None where that does not tell."""
    entries = exif_of(encoded).get_ifd(ExifTags.IFD.Exif)
    film_mm = _number(entries.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if film_mm is None or not FILM_FOCALS_MM[0] <= film_mm <= FILM_FOCALS_MM[1]:
        return None
    stored = [_number(entries.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
    width, height = stored
    if width and height:
        # of the longer side over the shorter one: programs that turn a picture may leave the entries as they were
        told, is_now = (max(size) / min(size) for size in ((width, height), size_px))
        if abs(told / is_now - 1) > SAME_SHAPE:
            return None
    return film_mm / FILM_DIAGONAL_MM * math.hypot(*size_px)


def _given(size_px: tuple[int, int], intrinsics: Intrinsics) -> Array:
    fx, fy, cx, cy = intrinsics
    said = f"intrinsics {fx:g},{fy:g},{cx:g},{cy:g}"
    if not all(map(math.isfinite, intrinsics)) or fx <= 0 or fy <= 0:
        raise PredictError(f"{said}: expected fx,fy,cx,cy in pixels, the first two above 0")
    width, height = size_px
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):
        raise PredictError(
            f"{said}: the principal point is far outside of the {width} x {height} photo; are they for another size?"
        )
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def _number(value: object) -> float | None:
    """An EXIF value as a number; None where it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
