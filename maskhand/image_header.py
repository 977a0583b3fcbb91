"""What the first bytes of a JPEG or PNG say of the image, before anybody makes room for it."""

from __future__ import annotations

import struct

import simplejpeg

from maskhand.errors import MaskhandError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 1 << 28
"""Larger than any camera's image, and 0.8 GB when it is decoded."""
LONGEST_SIDE_PX = 32_766
"""OpenCV's maps of pixels count in 16 bits."""

_EXIF, _ORIENTATION = 0xE1, 0x0112
_UPRIGHT = 1


_OTHER_KINDS = (
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP image"),
    (4, b"ftyp", "an image or film of the kind of HEIC, AVIF or MP4"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"BM", "a BMP image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"PK", "a .zip archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (run `git lfs pull`)"),
    (0, b"<", "a web page or XML"),
)
"""(place, bytes there, what such a file is)."""


class TooManyPixelsError(MaskhandError, ValueError):
    """An image that would take gigabytes when it is decoded."""


def size_px(data: bytes) -> tuple[int, int] | None:
    """(width, height) as stored; None where the header does not tell."""
    if data.startswith(PNG) and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data.startswith(JPEG):
        try:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            return None
        return width, height
    return None


def kind_of(data: bytes) -> str:
    """What a file is that is neither a JPEG nor a PNG."""
    if not data:
        return "empty"
    return next((kind for place, mark, kind in _OTHER_KINDS if data.startswith(mark, place)), "something else")


def check_pixels(data: bytes) -> None:
    """Raises TooManyPixelsError for an image of more than `MOST_PIXELS`, or with a side beyond `LONGEST_SIDE_PX`."""
    size = size_px(data)
    if size is not None:
        check_size(size)


def check_size(size: tuple[int, int]) -> None:
    """`check_pixels` of a width and height."""
    if size[0] * size[1] > MOST_PIXELS or max(size) > LONGEST_SIDE_PX:
        raise TooManyPixelsError(
            f"an image of {size[0]} x {size[1]}, {size[0] * size[1] / 1e6:,.0f} megapixels; at most "
            f"{MOST_PIXELS / 1e6:.0f} are read, and {LONGEST_SIDE_PX} pixels on a side: make it smaller"
        )


def exif_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (upright as stored) where it has none that can be read."""
    place = 2
    while data.startswith(JPEG) and place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _EXIF and data.startswith(b"Exif\0\0", place + 4):
            return _orientation(data[place + 10 : place + 2 + length])
        place += 2 + length
    return _UPRIGHT


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return _UPRIGHT
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, first + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else _UPRIGHT
    except struct.error:
        pass
    return _UPRIGHT
