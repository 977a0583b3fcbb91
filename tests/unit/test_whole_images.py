"""The check that an image is whole notices cuts and damage in the middle, and passes every kind of whole file."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from maskhand.adapters.base import check_image
from maskhand.adapters.readers.whole_images import whole_image
from maskhand.sample import HandSample, SampleError

HEIGHT, WIDTH = 180, 240


def image(form: str, mode: str = "RGB", **how: object) -> bytes:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 3, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(buffer, form, **how)
    return buffer.getvalue()


WHOLE = {
    "baseline": image("JPEG"),
    "4:4:4": image("JPEG", subsampling=0),
    "progressive": image("JPEG", progressive=True),
    "gray": image("JPEG", "L"),
    "cmyk": image("JPEG", "CMYK"),
    "png": image("PNG"),
    "png with alpha": image("PNG", "RGBA"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_pass(kind: str) -> None:
    assert whole_image(WHOLE[kind]) == ("png" if "png" in kind else "jpg", (WIDTH, HEIGHT))


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("behind", [bytes(5000), WHOLE["baseline"], b"ftypmp42" + bytes(range(256)) * 20])
def test_what_lies_behind_the_end_does_not_matter(kind: str, behind: bytes) -> None:
    """Phones append a preview, a depth map or a film."""
    data = WHOLE[kind] + behind
    form, size = whole_image(data)
    assert size == (WIDTH, HEIGHT)
    hand = HandSample("hand-1", "phone", data, form, size, "right", np.array([10, 10, 90, 90], np.float32))
    hand.validate()


def cut(data: bytes, place: int) -> bytes:
    return data[:place]


def cut_but_for_the_end(data: bytes, place: int) -> bytes:
    """What a reader that looks at the last bytes only takes for whole."""
    return data[:place] + data[-12:]


def hole(data: bytes, place: int) -> bytes:
    """A lost piece of a disk or of a transfer."""
    return data[:place] + bytes(min(512, len(data) - 12 - place)) + data[min(place + 512, len(data) - 12) :]


def missing_piece(data: bytes, place: int) -> bytes:
    return data[:place] + data[min(place + 512, len(data) - 12) :]


@pytest.mark.parametrize("kind", ["baseline", "progressive", "png"])
@pytest.mark.parametrize("damage", [cut, cut_but_for_the_end, hole, missing_piece])
def test_damage_is_noticed(kind: str, damage: Callable[[bytes, int], bytes]) -> None:
    """A JPEG has no checksum: now and then a damaged one reads as another, whole image."""
    data, rng, noticed = WHOLE[kind], random.Random(0), 0
    for _ in range(50):
        try:
            whole_image(damage(data, rng.randrange(700, len(data) - 1000)))
        except ValueError:
            noticed += 1
    assert noticed >= (50 if damage is cut or kind == "png" else 40)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a and more", "bad_image"),
        (b"", "bad_image"),
        (WHOLE["baseline"][:200], "cut_image"),
        (WHOLE["png"][:40], "cut_image"),
        (cut_but_for_the_end(WHOLE["baseline"], 3000), "cut_image"),
    ],
)
def test_rejects_have_a_reason_and_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(SampleError, match="hand-1: raw/1") as caught:
        check_image("hand-1", "raw/1.jpg", data)
    assert caught.value.reason == reason
