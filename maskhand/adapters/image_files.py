"""The images of samples: read, checked, and kept byte for byte as published."""

from __future__ import annotations

from dataclasses import dataclass

from maskhand import storage
from maskhand.adapters.raw_places import other_name
from maskhand.adapters.readers.whole_images import EmptyImageError, whole_image
from maskhand.catalog import DatasetSpec
from maskhand.image_header import TooManyPixelsError, exif_orientation, kind_of
from maskhand.sample import SampleError


@dataclass(frozen=True)
class Image:
    data: bytes
    format: str
    size_px: tuple[int, int]


def read_image(key: str, uri: str) -> Image:
    """Read and check one image; its bytes are kept as published."""
    try:
        data = storage.read_bytes(uri)
    except storage.MissingFileError as error:
        raise SampleError("missing_image", f"{key}: {error}{other_name(uri)}") from None
    except storage.NotAFileError as error:
        raise SampleError("bad_image", f"{key}: {error}") from None
    return check_image(key, uri, data)


def check_image(key: str, uri: str, data: bytes) -> Image:
    """An image's bytes, which came from `uri`, if they are whole and show something; SampleError (`bad_image`,
    `cut_image`, `empty_image`)."""
    try:
        return Image(data, *whole_image(data))
    except TypeError:
        raise SampleError("bad_image", f"{key}: {uri} is neither a JPEG nor a PNG file but {kind_of(data)}") from None
    except TooManyPixelsError as error:
        raise SampleError("bad_image", f"{key}: {uri} is {error}") from None
    except EmptyImageError:
        raise SampleError(
            "empty_image", f"{key}: {uri} is of one color from edge to edge; nothing of a hand can be seen in it"
        ) from None
    except ValueError as error:
        raise SampleError("cut_image", f"{key}: {uri} cannot be decoded to its end ({error}); copy it again") from None


def check_upright(spec: DatasetSpec, key: str, uri: str, image: Image) -> None:
    """SampleError (`turned_image`) for an image that its EXIF tag turns, unless the card says that labels ignore it."""
    turned = exif_orientation(image.data)
    if turned != 1 and spec.exif_orientation != "ignored":
        raise SampleError(
            "turned_image",
            f"{key}: {uri} is to be shown turned or mirrored (EXIF orientation {turned}), and labels "
            "made in a viewer would refer to it as shown, not as stored; store it upright, or put exif_orientation: "
            "ignored into the card if they refer to it as stored",
        )
