"""Check that an encoded image is whole and shows something: the cheapest that still notices damage in the middle.

A JPEG has no checksum, so its entropy-coded data must be read to the end: at an eighth of its size, in gray, which
leaves out nearly all of the arithmetic, and with every warning of libjpeg taken for an error. (Decoders that pass
libjpeg's warnings over, as Pillow and OpenCV do, paint the missing part gray.) Every chunk of a PNG has a checksum.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin, PngImagePlugin

from maskhand.arrays import Array
from maskhand.errors import MaskhandError
from maskhand.image_header import JPEG, PNG, check_pixels

_EMPTY_RANGE = 2
"""Gray values, of 255, that an image with anything in it exceeds."""
_PIXELS_PER_BYTE = 20
"""A PNG of one color takes a byte for more pixels than that; another one is not decoded to see its colors."""


class EmptyImageError(MaskhandError):
    """An image of a single color: a lens cap, a film's first frame, a decoder that gave up."""


def whole_image(data: bytes) -> tuple[str, tuple[int, int]]:
    """(`jpg` or `png`, (width, height)) of a whole file in stored orientation.

    Raises TypeError when the bytes are of another kind of file, ValueError with the decoder's words when they were cut
    or damaged, TooManyPixelsError, and EmptyImageError.
    """
    if data.startswith(JPEG):
        return "jpg", _whole_jpeg(data)
    if data.startswith(PNG):
        return "png", _whole_png(data)
    raise TypeError("neither a JPEG nor a PNG file")


def _whole_jpeg(data: bytes) -> tuple[int, int]:
    check_pixels(data)
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # A rare kind that libjpeg-turbo's simple interface does not know, or a cut header: Pillow tells.
        return _by_pillow(JpegImagePlugin.JpegImageFile, data, lambda image: _check_colors(np.asarray(image)))
    kind = "CMYK" if colors in ("CMYK", "YCCK") else "GRAY"
    _check_colors(simplejpeg.decode_jpeg(data, kind, min_height=1, min_width=1))
    return width, height


def _whole_png(data: bytes) -> tuple[int, int]:
    check_pixels(data)
    size = _by_pillow(PngImagePlugin.PngImageFile, data, lambda image: image.verify())
    if size[0] * size[1] > _PIXELS_PER_BYTE * len(data):
        _by_pillow(PngImagePlugin.PngImageFile, data, lambda image: _check_colors(np.asarray(image.convert("RGB"))))
    return size


def _check_colors(image: Array) -> None:
    """EmptyImageError for an image (H, W) or (H, W, C) whose channels hardly vary."""
    pixels = image.reshape(image.shape[0] * image.shape[1], -1)
    # Most images show in their first row that they are more than one color.
    if np.ptp(pixels[: image.shape[1]], axis=0).max() <= _EMPTY_RANGE and np.ptp(pixels, axis=0).max() <= _EMPTY_RANGE:
        raise EmptyImageError


def _by_pillow(
    kind: Callable[[io.BytesIO], Image.Image], data: bytes, check: Callable[[Image.Image], object]
) -> tuple[int, int]:
    try:
        # Not Image.open: its own limit of pixels is half of ours, and a warning from there on.
        with warnings.catch_warnings(), kind(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            check(image)
            return image.size
    except EmptyImageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(str(error) or type(error).__name__) from error
