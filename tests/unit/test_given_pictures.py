"""Whatever a program holds a picture in, it is read as the same picture, or refused in a sentence."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskhand.predict import PredictError
from maskhand.predict.given import read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PIXELS[0, 0], PIXELS[0, 1] = 255, 0


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), PIXELS[:, :, ::-1])
    return path


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda p: p,
    "lists": lambda p: p.tolist(),
    "int64": lambda p: p.astype(np.int64),
    "float32 to 1": lambda p: (p / 255).astype(np.float32),
    "float64 to 255": lambda p: p.astype(np.float64),
    "float16 to 255": lambda p: p.astype(np.float16),
    "uint16": lambda p: p.astype(np.uint16) * 257,
    "RGBA": lambda p: np.dstack([p, np.full(p.shape[:2], 7, np.uint8)]),
    "not contiguous": lambda p: p[:, ::-1].copy()[:, ::-1],
    "PIL": lambda p: Image.fromarray(p),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_are_the_picture(form: str) -> None:
    image = read_picture(ARRAYS[form](PIXELS), "it").image_rgb
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, PIXELS)


def test_files_are_the_picture(png: Path) -> None:
    data = png.read_bytes()
    text = base64.b64encode(data).decode()
    for value in (png, str(png), data, bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(read_picture(value, "it").image_rgb, PIXELS)
    for value in (str(png), text, f"data:image/png;base64,{text}"):
        read = read_picture(value, "it", base64_text=True)
        np.testing.assert_array_equal(read.image_rgb, PIXELS)
        assert read.encoded == data and (read.path == str(png)) == (value == str(png))


def test_gray_becomes_rgb_and_black_stays_black() -> None:
    gray = PIXELS[:, :, 0]
    for value in (gray, gray[:, :, None], gray / 255):
        np.testing.assert_array_equal(read_picture(value, "it").image_rgb, np.dstack([gray] * 3))
    for kind in (np.uint8, np.uint16, np.float32):
        assert not read_picture(np.zeros((9, 9, 3), kind), "it").image_rgb.any()


REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": (np.where(PIXELS > 250, np.nan, PIXELS), r"it: \d+ of 1800 values are NaN or infinite"),
    "negative": (PIXELS / 127.5 - 1, "float64 from -1 to 1; expected 0 to 1, or 0 to 255 .* Undo a normalization"),
    "overshoot": (PIXELS / 250, "float64 from 0 to 1.02; expected 0 to 1"),
    "float 16 bit": (PIXELS * 257.0, "float64 from 0 to 65535; expected 0 to 1"),
    "int16 bit": (PIXELS.astype(np.int32) * 257, "int32 from 0 to 65535; expected 0 to 255"),
    "uint16 of 8 bit": (PIXELS.astype(np.uint16), "no value is above 255; if 255 is white, make it uint8"),
    "mask": (PIXELS > 9, "array of bool, expected uint8, uint16 or floats"),
    "channels first": (
        PIXELS.transpose(2, 0, 1),
        r"shape \(3, 20, 30\), expected \(H, W, 3\) RGB: channels come first",
    ),
    "batch": (PIXELS[None], r"shape \(1, 20, 30, 3\).* these are several pictures"),
    "row": (PIXELS[0].tolist(), r"shape \(30, 3\).* a row of a picture\?"),
    "five channels": (
        np.zeros((9, 9, 5), np.uint8),
        r"shape \(9, 9, 5\), expected .*, \(H, W\) gray or \(H, W, 4\) RGBA",
    ),
    "nothing": (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
    "ragged": ([[1, 2], [3]], "rows of unequal lengths"),
    "texts": (np.array([["a"]]), r"shape \(1, 1\)"),
    "None": (None, "NoneType; expected a path, bytes of an image file, or an array"),
    "broken": (b"broken", "it: not an image that can be decoded"),
    "empty": (b"", "the file is empty"),
    "no such file": ("nowhere.jpg", r"it: .*nowhere\.jpg"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_is_refused(kind: str) -> None:
    value, message = REFUSED[kind]
    with pytest.raises(PredictError, match=message):
        read_picture(value, "it")


def test_a_text_that_is_neither_file_nor_base64_is_said() -> None:
    with pytest.raises(PredictError, match=r"it: 'nowhere\.jpg' is neither a file nor base64"):
        read_picture("nowhere.jpg", "it", base64_text=True)
