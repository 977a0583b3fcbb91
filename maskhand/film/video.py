"""Film files by PyAV: frames in the orientation and shape in which players show them, one at a time, and H.264 back."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from maskhand.arrays import Array
from maskhand.predict.records import PredictError
from maskhand.replacement import TEMPORARY

FILM_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv"})
"""Of the files that are taken for films, in lower case."""
ENCODERS = ("libx264", "libvpx-vp9", "mpeg4")
"""The first that the PyAV at hand has is used; its wheels have all three. Each fits into mp4."""
QUALITY = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "30", "b": "0", "cpu-used": "6", "deadline": "realtime"},
    "mpeg4": {"qscale": "3"},
}
TICKS_PER_S = 90_000
"""Time base of written films: whole numbers for the usual rates, and exact enough for phones' uneven ones."""


@dataclass(frozen=True)
class FilmFacts:
    """What the container says about its first video stream."""

    size_px: tuple[int, int]
    """Width and height of a frame as it is shown: upright, pixels square."""
    frames: int
    """Number of frames, 0 where the container does not say; an estimate where it only has a duration."""
    frames_per_s: float
    """The average rate, 30 where it is not known."""


@dataclass(frozen=True)
class Frame:
    """A frame of a film."""

    index: int
    """Position among the frames of the film that can be decoded, from 0."""
    time_s: float
    """From the container: rates may vary."""
    image_rgb: Array
    """(H, W, 3) uint8, upright, pixels square."""


def is_film(path: str | Path) -> bool:
    """Whether the name is that of a film file."""
    return Path(path).suffix.lower() in FILM_SUFFIXES


def film_facts(path: str | Path) -> FilmFacts:
    """The facts of a film, by its container and first frame. Raises PredictError as `read_frames`."""
    height, width = next(read_frames(path)).image_rgb.shape[:2]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 30)
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        return FilmFacts((width, height), stream.frames or round(seconds * rate), rate)


def read_frames(path: str | Path, every: int = 1, start: int = 0) -> Iterator[Frame]:
    """The frames 0, `every`, 2 `every` ... of a film, decoded as they are asked for: memory holds a few.

    start: those before it are decoded, as later ones need them, and not given.
    Turned as the container's display matrix says (phones store what their sensor saw), and stretched where pixels are
    not square. Packets that cannot be decoded are left out. PredictError for what is not a film, naming the file.
    """
    if every < 1:
        raise PredictError(f"every {every} frames: expected 1 or more")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PredictError(f"{path}: a file without video; give a film (mp4, mov, avi, webm, mkv)")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 30)
            index, last_s = -1, -np.inf
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    continue
                for frame in decoded:
                    if not isinstance(frame, VideoFrame):
                        continue
                    index += 1
                    time_s = index / rate if frame.time is None else float(frame.time)
                    # Some containers repeat a time; speeds and smoothing divide by differences.
                    last_s = time_s if time_s > last_s else last_s + 1 / rate
                    if index >= start and index % every == 0:
                        yield Frame(index, last_s, _shown(frame, stream.sample_aspect_ratio))
    except av.error.FFmpegError as error:
        raise PredictError(
            f"{path}: not a film that can be read ({error.strerror}); give mp4, mov, avi, webm or mkv"
        ) from None
    if index < 0:
        raise PredictError(f"{path}: no frame of this film can be decoded; is the file complete?")


def _shown(frame: VideoFrame, sample_aspect: Fraction | None) -> Array:
    """The frame as players show it."""
    image = frame.to_ndarray(format="rgb24")
    if sample_aspect and sample_aspect != 1:
        width = max(1, round(image.shape[1] * float(sample_aspect)))
        image = cv2.resize(image, (width, image.shape[0]), interpolation=cv2.INTER_LINEAR)
    # FFmpeg's angle is counter-clockwise, as numpy's quarter turns.
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


class FilmWriter:
    """Writes frames to an .mp4 that takes the place of `path` when the block ends without an error.

    H.264, 4:2:0, which every player and browser shows. Such films have even sizes: an odd one is continued by a column
    or row that repeats the last. Times are kept, also uneven ones.
    """

    def __init__(self, path: str | Path, frames_per_s: float) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}{TEMPORARY}")
        self._rate = Fraction(frames_per_s).limit_denominator(1001)
        self._last_tick = -1

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._partial), "w", format="mp4")
        name = next(name for name in ENCODERS if name in av.codec.codecs_available)
        self._stream = self._container.add_stream(name, rate=self._rate, options=QUALITY[name])
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        return self

    def write(self, image_rgb: Array, time_s: float) -> None:
        """The next frame, (H, W, 3) uint8; all of the size of the first, times rising."""
        height, width = image_rgb.shape[:2]
        image = np.pad(image_rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._last_tick < 0:
            self._stream.height, self._stream.width = image.shape[:2]
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._last_tick = max(self._last_tick + 1, round(time_s * TICKS_PER_S))
        frame.pts, frame.time_base = self._last_tick, Fraction(1, TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if error is None:
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)
