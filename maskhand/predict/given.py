"""Pictures passed from Python: paths, encoded files, base64 text, arrays of several types.

The value range of an array is inferred from its type and largest value; ambiguous arrays are rejected:

    uint8, or other integers from 0 to 255    unchanged
    uint16                                    65535 is white; rejected if no value is above 255
    floats                                    maximum up to 1: 1 is white; 16 to 255: 255 is white; between: rejected

NaN, infinities, negative and larger values are rejected. (H, W) and (H, W, 1) are gray; the fourth channel of
(H, W, 4) is ignored.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.predict.photo import check_image, decode_photo
from maskhand.predict.records import PredictError

CHANNELS: Final = (1, 3, 4)
LEAST_BRIGHT: Final = 16
"""Smallest maximum of a float picture in 0 to 255: with a smaller one it would be black."""
LONGEST_PATH: Final = 4096
WHOLE_MAX: Final = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class GivenPicture:
    """A decoded picture."""

    image_rgb: Array
    """(H, W, 3) uint8, upright."""
    encoded: bytes = b""
    """The file's bytes, whose EXIF may have the focal length; empty for an array."""
    path: str | None = None


def read_picture(value: Any, name: str, base64_text: bool = False) -> GivenPicture:
    """Read a picture from a path, an encoded file, an array or nested lists, or a PIL image. Raises PredictError.

    name: its name in error messages. base64_text: a string that is not a file's path is decoded as base64, with or
    without the prefix `data:image/jpeg;base64,`.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value), name)
    if isinstance(value, str) and base64_text and not _is_path(value):
        return _decoded(_from_base64(value, name), name)
    if isinstance(value, str | os.PathLike):
        return _from_file(os.fspath(value), name)
    if hasattr(value, "convert") and hasattr(value, "mode"):  # a PIL image, whose array may hold palette indices
        value = np.asarray(value.convert("RGB"))
    if not (isinstance(value, list | tuple) or hasattr(value, "__array__")):
        raise PredictError(f"{name}: {type(value).__name__}; expected a path, bytes of an image file, or an array")
    return GivenPicture(rgb_of_array(value, name))


def rgb_of_array(values: Any, name: str) -> Array:
    """Convert an array of any type and channels above to (H, W, 3) uint8. Raises PredictError."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise PredictError(f"{name}: rows of unequal lengths; expected an array (H, W, 3)") from None
    is_gray = array.ndim == 2 and array.shape[1] not in CHANNELS
    channels_last = array[..., None] if is_gray else array
    if channels_last.ndim != 3 or channels_last.shape[2] not in CHANNELS or not channels_last.size:
        raise PredictError(f"{name}: array of shape {array.shape}, expected (H, W, 3) RGB{_why_not(array.shape)}")
    colors = channels_last[..., :3]
    pixels = _whole(colors, name) if array.dtype.kind in "ui" else _floats(colors, name)
    image = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    check_image(image, name)
    return image


def _whole(colors: Array, name: str) -> Array:
    least, most = int(colors.min()), int(colors.max())
    white = WHOLE_MAX.get(colors.dtype.name, 255)
    if least < 0 or most > white:
        raise PredictError(f"{name}: {colors.dtype} from {least} to {most}; expected 0 to 255 (uint16: to 65535)")
    if white == 255:
        return colors.astype(np.uint8)
    if 0 < most <= 255:
        raise PredictError(
            f"{name}: uint16, in which 65535 is white, and no value is above {most}; if 255 is white, make it uint8"
        )
    return ((colors.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _floats(colors: Array, name: str) -> Array:
    if colors.dtype.kind != "f":
        raise PredictError(f"{name}: array of {colors.dtype}, expected uint8, uint16 or floats")
    if wrong := int(np.count_nonzero(~np.isfinite(colors))):
        raise PredictError(f"{name}: {wrong} of {colors.size} values are NaN or infinite; nothing says what is there")
    least, most = float(colors.min()), float(colors.max())
    if least < 0 or most > 255 or 1 < most < LEAST_BRIGHT:
        raise PredictError(
            f"{name}: {colors.dtype} from {least:g} to {most:g}; expected 0 to 1, or 0 to 255 as RGB is stored. Undo a "
            "normalization, and clip what interpolation made of it"
        )
    return np.rint(colors.astype(np.float64) * (255 if most <= 1 else 1)).astype(np.uint8)


def _why_not(shape: tuple[int, ...]) -> str:
    if len(shape) == 3 and shape[0] in CHANNELS:
        return ": channels come first, use array.transpose(1, 2, 0)"
    if len(shape) == 2 and shape[1] in CHANNELS:
        return ": a row of a picture? give the picture in a list, {'image': [array]}"
    if len(shape) == 4:
        return ": these are several pictures, give them one by one"
    return ", (H, W) gray or (H, W, 4) RGBA"


def _decoded(data: bytes, name: str, path: str | None = None) -> GivenPicture:
    return GivenPicture(decode_photo(data, name), data, path)


def _from_file(path: str, name: str) -> GivenPicture:
    label = path if path == name else f"{name}: {path}"
    try:
        data = storage.read_bytes(path)
    except storage.StorageError as error:
        hint = "; give one image file" if isinstance(error, storage.NotAFileError) else ""
        raise PredictError(f"{'' if path == name else f'{name}: '}{error}{hint}") from None
    return _decoded(data, label, path)


def _is_path(text: str) -> bool:
    if len(text) > LONGEST_PATH or text.startswith("data:"):
        return False
    try:
        return Path(text).is_file() or storage.is_remote(text)
    except (OSError, ValueError):
        return False


def _from_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise PredictError(f"{name}: {text[:80]!r} is neither a file nor base64") from None
