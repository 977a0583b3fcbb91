"""Pictures of every kind that people have: each is a right image, has no hand, or is refused in one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from maskhand.image_header import LONGEST_SIDE_PX
from maskhand.predict import PredictError, decode_photo, predict_hands, read_photo

PIXELS = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 4)
PICTURE = Image.fromarray(PIXELS)
GRAY = np.asarray(PICTURE.convert("L"))
OTHER = ImageOps.invert(PICTURE)


def saved(kind: str, image: Image.Image = PICTURE, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def heic(image: Image.Image = PICTURE, **options) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The picture as a camera stores it that asks for that EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    backward = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    sideways = Image.new("RGB", PICTURE.size)
    sideways.paste(PICTURE)
    sideways.getexif()[0x0112] = backward
    return ImageOps.exif_transpose(sideways), exif


def by_header(width: int, height: int) -> bytes:
    """A PNG of that size by its header, with a row of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def cut_out() -> Image.Image:
    """The picture with its left half transparent."""
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:, :40] = 0
    return Image.fromarray(np.dstack([PIXELS, alpha]))


on_white = np.concatenate([np.full_like(PIXELS[:, :40], 255), PIXELS[:, 40:]], axis=1)
gray_rgb = np.repeat(GRAY[..., None], 3, axis=2)
palette = PICTURE.quantize(64)
KINDS: dict[str, tuple[bytes, np.ndarray, float]] = {
    "jpeg": (saved("JPEG", quality=95), PIXELS, 1.5),
    "progressive jpeg": (saved("JPEG", quality=95, progressive=True), PIXELS, 1.5),
    "gray jpeg": (saved("JPEG", Image.fromarray(GRAY), quality=95), gray_rgb, 1.5),
    "cmyk jpeg": (saved("JPEG", PICTURE.convert("CMYK"), quality=95), PIXELS, 1.5),
    "png of 16 bits": (png16(PIXELS[..., ::-1]), PIXELS, 0.0),
    "gray png of 16 bits": (png16(GRAY), gray_rgb, 0.0),
    "gray tiff of 16 bits that is to be turned": (
        saved("TIFF", Image.fromarray(np.rot90(GRAY).astype(np.uint16) * 257), exif=turned(6)[1]),
        gray_rgb,
        0.0,
    ),
    "pgm of 16 bits": (b"P5 %d %d 65535\n" % GRAY.shape[::-1] + (GRAY.astype(">u2") * 257).tobytes(), gray_rgb, 0.0),
    "palette": (saved("PNG", palette), np.asarray(palette.convert("RGB")), 0.0),
    "palette with a transparent color": (saved("PNG", cut_out().quantize(256)), on_white, 3.0),
    "alpha": (saved("PNG", cut_out()), on_white, 0.0),
    "webp with alpha": (saved("WEBP", cut_out(), lossless=True), on_white, 0.0),
    "animated gif": (saved("GIF", save_all=True, append_images=[OTHER]), PIXELS, 3.0),
    "animated webp": (saved("WEBP", save_all=True, append_images=[OTHER], lossless=True), PIXELS, 0.0),
    "tiff of two pages": (saved("TIFF", save_all=True, append_images=[OTHER]), PIXELS, 0.0),
    "bmp": (saved("BMP"), PIXELS, 0.0),
    "avif": (saved("AVIF", quality=95), PIXELS, 1.5),
    "heic": (heic(), PIXELS, 1.5),
    "heic that is to be turned": (heic(turned(6)[0], exif=turned(6)[1].tobytes()), PIXELS, 1.5),
    "webp that is to be turned": (saved("WEBP", turned(8)[0], exif=turned(8)[1], lossless=True), PIXELS, 0.0),
    "damaged exif": (saved("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xf0", quality=95), PIXELS, 1.5),
} | {
    f"exif orientation {k}": (saved("JPEG", turned(k)[0], exif=turned(k)[1], quality=95), PIXELS, 1.5)
    for k in range(1, 9)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_is_what_a_viewer_shows_whatever_its_suffix(kind: str, suffix: str, tmp_path: Path) -> None:
    data, expected, tolerance = KINDS[kind]
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(data)
    image = read_photo(path)
    assert image.dtype == np.uint8 and image.shape == expected.shape and image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


REFUSED = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello", "not an image that can be decoded; give a JPEG, PNG, HEIC"),
    "cut jpeg": (KINDS["jpeg"][0][:-300], "JPEG file that cannot be decoded to its end"),
    "cut png": (KINDS["alpha"][0][:-300], "PNG file that cannot be decoded to its end"),
    "cut tiff": (KINDS["tiff of two pages"][0][:900], "TIFF file that cannot be decoded to its end"),
    "cut heic": (KINDS["heic"][0][:-300], "cut or damaged"),
    "header alone": (KINDS["jpeg"][0][:40], "not an image that can be decoded"),
    "2^31 pixels": (by_header(50000, 50000), "2,500 megapixels; at most"),
    "too long": (by_header(LONGEST_SIDE_PX + 1, 1), "pixels on a side: make it smaller"),
    "no pixels": (by_header(0, 7), "not an image that can be decoded|has no pixels"),
    "floats": (saved("TIFF", PICTURE.convert("F")), "32 bits"),
    "8 bits in 16": (cv2.imencode(".png", PIXELS.astype(np.uint16))[1].tobytes(), "no value is above 255"),
    "8 gray bits in 16": (cv2.imencode(".png", GRAY.astype(np.uint16))[1].tobytes(), "no value is above 255"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_decoded_is_one_sentence(kind: str) -> None:
    data, words = REFUSED[kind]
    with pytest.raises(PredictError, match=f"(?s)^photo: .*({words})") as raised:
        decode_photo(data, "photo")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (LONGEST_SIDE_PX, 1)])
def test_a_strip_has_no_hand(size: tuple[int, int], assets: Path) -> None:
    assert predict_hands(np.resize(PIXELS, (*size, 3)), None, assets=assets) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5), np.uint8), np.zeros((5, LONGEST_SIDE_PX + 1, 3), np.uint8)],
)
def test_an_array_that_is_no_picture_is_refused(image: np.ndarray, assets: Path) -> None:
    with pytest.raises(PredictError, match=r"has no pixels|expected uint8|make it smaller"):
        predict_hands(image, None, assets=assets)
