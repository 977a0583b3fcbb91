"""Reading of photos, and checks of images and given boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.image_header import TooManyPixelsError, check_size
from maskhand.predict.decode import UndecodableError, decode_rgb
from maskhand.predict.records import PredictError

Box = tuple[float, float, float, float]


def read_photo(path: str | Path) -> Array:
    """Read a photo as (H, W, 3) uint8 RGB in its EXIF orientation. Raises PredictError."""
    return decode_photo(read_encoded(path), str(path))


def read_encoded(path: str | Path) -> bytes:
    """The bytes of a photo's file. Raises PredictError."""
    try:
        return storage.read_bytes(path)
    except storage.NotAFileError as error:
        raise PredictError(f"{error}; give one image file") from None
    except storage.StorageError as error:
        raise PredictError(str(error)) from None


def decode_photo(data: bytes, name: str) -> Array:
    """Decode an image as (H, W, 3) uint8 RGB, as `read_photo`. Raises PredictError whose message begins with `name`."""
    try:
        return decode_rgb(data)
    except UndecodableError as error:
        raise PredictError(f"{name}: {error}") from None


def check_image(image_rgb: Array, name: str = "image") -> None:
    """Raises PredictError unless the image is (H, W, 3) uint8, not empty, and within the size limit (`check_size`)."""
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise PredictError(f"{name}: {image_rgb.dtype} of shape {image_rgb.shape}, expected uint8 (H, W, 3) RGB")
    height, width = image_rgb.shape[:2]
    if not height or not width:
        raise PredictError(f"{name}: an image of {width} x {height} has no pixels")
    try:
        check_size((width, height))
    except TooManyPixelsError as error:
        raise PredictError(f"{name}: {error}") from None


def check_boxes(boxes: Array, image_rgb: Array) -> None:
    """Raises PredictError for boxes (N, 4) that are empty or outside of the image."""
    height, width = image_rgb.shape[:2]
    for x0, y0, x1, y1 in boxes.tolist():
        overlaps = x1 - x0 >= 2 and y1 - y0 >= 2 and x0 < width and y0 < height and x1 > 0 and y1 > 0
        # a box may exceed the image, but not by more than its size
        if not (overlaps and x0 > -width and y0 > -height and x1 < 2 * width and y1 < 2 * height):
            raise PredictError(
                f"box {x0:g},{y0:g},{x1:g},{y1:g}: expected x0,y0,x1,y1 with x0 < x1 and y0 < y1, "
                f"in pixels of the {width} x {height} image"
            )
