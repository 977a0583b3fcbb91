"""Film files: what is written is read again, turned and shaped as players show it."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from maskhand.film.video import FilmWriter, film_facts, read_frames
from maskhand.predict.records import PredictError


def picture(width: int, height: int, shade: int = 0) -> np.ndarray:
    """Red in the corner at the top left, blue at the top right, the rest gray."""
    image = np.full((height, width, 3), 90 + shade, np.uint8)
    image[: height // 3, : width // 3] = (220, 40, 40)
    image[: height // 3, -(width // 3) :] = (40, 40, 220)
    return image


def corners(image: np.ndarray) -> list[str]:
    """The color of each corner, from the top left clockwise."""
    tones = [image[8, 8], image[8, -8], image[-8, -8], image[-8, 8]]
    return ["red" if r > b + 60 else "blue" if b > r + 60 else "gray" for r, _, b in np.asarray(tones, int)]


@pytest.mark.parametrize("size", [(96, 64), (97, 65), (64, 131)])
def test_frames_and_uneven_times_come_back(tmp_path: Path, size: tuple[int, int]) -> None:
    path, times = tmp_path / "a.mp4", [0.0, 0.04, 0.05, 0.11, 0.2]
    with FilmWriter(path, 25) as film:
        for k, time_s in enumerate(times):
            film.write(picture(*size, 20 * k), time_s)
    frames = list(read_frames(path))
    np.testing.assert_allclose([f.time_s for f in frames], times, atol=1e-4)
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert film_facts(path).size_px == even and film_facts(path).frames == len(times)
    for k, frame in enumerate(frames):
        shown = frame.image_rgb[: size[1], : size[0]].astype(int)
        assert np.abs(shown - picture(*size, 20 * k)).mean() < 4
    assert [f.index for f in read_frames(path, every=2)] == [0, 2, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (0, ["red", "blue", "gray", "gray"]),
        (90, ["blue", "gray", "gray", "red"]),
        (180, ["gray", "gray", "red", "blue"]),
        (-90, ["gray", "red", "blue", "gray"]),
    ],
)
def test_a_film_held_otherwise_is_turned(tmp_path: Path, turn: int, expected: list[str]) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(96, 64), format="rgb24")))
        container.mux(stream.encode())
    image = next(read_frames(path)).image_rgb
    assert corners(image) == expected and image.shape[:2] == ((64, 96) if turn % 180 == 0 else (96, 64))


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(96, 64), format="rgb24")))
        container.mux(stream.encode())
    assert film_facts(path).size_px == (144, 64)


def test_what_is_no_film_is_one_sentence_with_its_name(tmp_path: Path) -> None:
    text, cut, whole = tmp_path / "text.mp4", tmp_path / "cut.mp4", tmp_path / "whole.mp4"
    text.write_text("no film")
    with FilmWriter(whole, 25) as film:
        for k in range(5):
            film.write(picture(96, 64), k / 25)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for path in (text, cut, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(PredictError, match=path.name):
            list(read_frames(path))
    with pytest.raises(RuntimeError, match="stop"), FilmWriter(whole, 25) as film:
        film.write(picture(96, 64), 0.0)
        raise RuntimeError("stop")
    assert len(list(read_frames(whole))) == 5 and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("kind", "said"), [("pipe", "a pipe"), ("folder", "a folder"), ("loop", "a link"), ("", "no")])
def test_what_has_the_name_of_a_film_is_not_waited_for(tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "hands.mp4"
    if kind:
        {"pipe": os.mkfifo, "folder": Path.mkdir, "loop": lambda place: place.symlink_to(place)}[kind](path)
    with pytest.raises(PredictError, match=f"{path}: .*{said}"):
        film_facts(path)
