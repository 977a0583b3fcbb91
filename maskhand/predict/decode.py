"""Decoding of image files as a viewer shows them: JPEG, PNG, HEIC, WebP, GIF, TIFF and others.

The format is recognized by content, not by suffix. EXIF's orientation is applied; transparency is composited over
white; the first picture of an animation or of several pages is used; 16 bits become 8; CMYK and gray become RGB. A
truncated or damaged file is rejected: decoders fill the missing part with gray, and a hand may be there.
"""

from __future__ import annotations

import io
import warnings
from typing import Final

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from maskhand.arrays import Array
from maskhand.errors import MaskhandError
from maskhand.image_header import JPEG, PNG, TooManyPixelsError, check_pixels, check_size

OTHER_KINDS: Final = ("GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
"""Formats that Pillow decodes by itself; its others start external programs (EPS) or are not used for photos."""
HEIF: Final = ("image/heic", "image/heif")
WHITE: Final = (255, 255, 255, 255)
_PNG_BITS: Final = 24
"""Byte of a PNG file with the bits of each value."""
TOO_DARK: Final = (
    "its pixels have 16 bits, in which 65535 is white, and no value is above 255; if 255 is white, save it with 8"
)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that makes the stored picture upright."""


class UndecodableError(MaskhandError, ValueError):
    """An encoded picture that cannot be used; the message says why and what to do, and does not name the picture."""


def decode_rgb(data: bytes) -> Array:
    """An encoded picture -> (H, W, 3) uint8 RGB, upright. Raises UndecodableError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF and of large pictures within our limit
        image = _opened(data)
        try:
            pixels = _rgb(image)
        except UndecodableError:
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            raise UndecodableError(
                f"a {image.format or 'HEIC'} file that cannot be decoded to its end ({_reason(error)}); copy it again"
            ) from error
    # Pillow gives the upper 8 bits alone.
    if data.startswith(PNG) and data[_PNG_BITS] == 16 and not pixels.any():
        raise UndecodableError(TOO_DARK)
    return pixels


def exif_of(data: bytes) -> Image.Exif:
    """The EXIF entries of an encoded picture; empty if there are none or they cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if not _is_heif(data):
                return _opened(data).getexif()
            exif = Image.Exif()
            exif.load(pillow_heif.open_heif(data).info.get("exif") or b"")  # without its pixels
            return exif
        except Exception:  # not a picture, or damaged
            return Image.Exif()


def _opened(data: bytes) -> Image.Image:
    """The picture with its header read; the pixels are decoded later, except for HEIC."""
    if not data:
        raise UndecodableError("not an image that can be decoded: the file is empty")
    try:
        check_pixels(data)
        # Not Image.open for these: its limit on the number of pixels is below ours.
        if data.startswith(JPEG):
            return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        if data.startswith(PNG):
            return PngImagePlugin.PngImageFile(io.BytesIO(data))
        if _is_heif(data):
            heif = pillow_heif.open_heif(data)
            check_size(heif.size)
            return heif.to_pillow()
        image = Image.open(io.BytesIO(data), formats=OTHER_KINDS)
        check_size(image.size)
        return image
    except TooManyPixelsError as error:
        raise UndecodableError(str(error)) from None
    except Image.DecompressionBombError as error:
        raise UndecodableError(f"{str(error).rstrip('.')}: make it smaller") from None
    except UnidentifiedImageError:
        raise UndecodableError(
            "not an image that can be decoded; give a JPEG, PNG, HEIC, WebP, GIF, TIFF, AVIF or BMP file"
        ) from None
    except Exception as error:
        raise UndecodableError(
            f"not an image that can be decoded: it is cut or damaged ({_reason(error)}); copy it again"
        ) from error


def _is_heif(data: bytes) -> bool:
    return pillow_heif.get_file_mimetype(data).startswith(HEIF)


def _rgb(image: Image.Image) -> Array:
    image.load()
    turn = _TURNS.get(_orientation(image))
    # Of 16-bit PPM Pillow makes 32-bit integers of the same values.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image)
        if 0 < values.max() <= 255:
            raise UndecodableError(TOO_DARK)
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UndecodableError("its pixels have 32 bits, and nothing says which value is white; save it with 8 or 16")
    if not min(image.size):
        raise UndecodableError(f"an image of {image.size[0]} x {image.size[1]} has no pixels")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image.convert("RGBA"))
    image = image.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF: treated as upright
        return 1


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
