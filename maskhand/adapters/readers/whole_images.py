"""Check that an encoded image is whole: the cheapest that still notices a file cut or damaged in the middle.

A JPEG has no checksum, so its entropy-coded data must be read to the end: at an eighth of its size, in gray, which
leaves out nearly all of the arithmetic, and with every warning of libjpeg taken for an error. (Decoders that pass
libjpeg's warnings over, as Pillow and OpenCV do, paint the missing part gray.) Every chunk of a PNG has a checksum.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import simplejpeg
from PIL import Image

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def whole_image(data: bytes) -> tuple[str, tuple[int, int]]:
    """(`jpg` or `png`, (width, height)) of a whole file in stored orientation.

    Raises TypeError when the bytes are of another kind of file, ValueError with the decoder's words when they were cut
    or damaged.
    """
    if data.startswith(JPEG):
        return "jpg", _whole_jpeg(data)
    if data.startswith(PNG):
        return "png", _whole_png(data)
    raise TypeError("neither a JPEG nor a PNG file")


def _whole_jpeg(data: bytes) -> tuple[int, int]:
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # A rare kind that libjpeg-turbo's simple interface does not know, or a cut header: Pillow tells.
        return _by_pillow(data, lambda image: image.load())
    simplejpeg.decode_jpeg(data, "CMYK" if colors in ("CMYK", "YCCK") else "GRAY", min_height=1, min_width=1)
    return width, height


def _whole_png(data: bytes) -> tuple[int, int]:
    return _by_pillow(data, lambda image: image.verify())


def _by_pillow(data: bytes, check: Callable[[Image.Image], object]) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            check(image)
            return image.size
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error
