"""Film files with PyAV: reading frames one at a time, oriented and scaled as players show them, and writing H.264."""

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
from av.video.stream import VideoStream

from maskhand import local_files
from maskhand.arrays import Array
from maskhand.predict.records import PredictError
from maskhand.replacement import TEMPORARY
from maskhand.storage_errors import StorageError

FILM_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".webm", ".mkv"})
"""Suffixes of film files, in lower case."""
ENCODERS = ("libx264", "libvpx-vp9", "mpeg4")
"""The first one available in PyAV is used; its wheels have all three. All can be stored in mp4."""
QUALITY = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "30", "b": "0", "cpu-used": "6", "deadline": "realtime"},
    "mpeg4": {"qscale": "3"},
}
TICKS_PER_S = 90_000
"""Time base of written films: integer frame durations for common rates, and exact enough for uneven ones of phones."""


@dataclass(frozen=True)
class FilmFacts:
    """Facts about the first video stream of a container."""

    size_px: tuple[int, int]
    """Width and height of a displayed frame: upright, square pixels."""
    frames: int
    """Number of frames, 0 if the container does not state it; an estimate if it only has a duration."""
    frames_per_s: float
    """The average rate, 30 if unknown."""


@dataclass(frozen=True)
class Frame:
    """A frame of a film."""

    index: int
    """Position among the decodable frames of the film, from 0."""
    time_s: float
    """From the container, as rates may vary."""
    image_rgb: Array
    """(H, W, 3) uint8, upright, square pixels."""


def is_film(path: str | Path) -> bool:
    """Whether the file has the suffix of a film."""
    return Path(path).suffix.lower() in FILM_SUFFIXES


def film_facts(path: str | Path) -> FilmFacts:
    """The facts of a film, from its container and first frame. Raises PredictError as `read_frames`."""
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
    """The frames 0, `every`, 2 `every` ... of a film, decoded lazily: only a few are in memory.

    start: earlier frames are decoded, as later ones depend on them, but not returned.
    Frames are rotated by the container's display matrix (phones store the sensor's orientation), and resized if pixels
    are not square. Packets that cannot be decoded are skipped. Raises PredictError, naming the file, if it is no film.
    """
    if every < 1:
        raise PredictError(f"every {every} frames: expected 1 or more")
    try:
        local_files.size(path)  # FFmpeg would wait for somebody to write into a pipe
    except StorageError as error:
        raise PredictError(str(error)) from None
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
                    # Some containers repeat a time, but velocities and smoothing divide by differences.
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
    """The frame as players display it."""
    image: Array = frame.to_ndarray(format="rgb24")
    if sample_aspect and sample_aspect != 1:
        width = max(1, round(image.shape[1] * float(sample_aspect)))
        image = cv2.resize(image, (width, image.shape[0]), interpolation=cv2.INTER_LINEAR)
    # FFmpeg's angle is counter-clockwise, like np.rot90.
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


class FilmWriter:
    """Writes frames to an .mp4 that replaces `path` when the block ends without an error.

    H.264 (or the next of `ENCODERS`) with 4:2:0 chroma, which players and browsers support. It needs even sizes, so the
    last column or row of an odd size is repeated. Frame times are kept, also uneven ones.
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
        stream = self._container.add_stream(name, rate=self._rate, options=QUALITY[name])
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        return self

    def write(self, image_rgb: Array, time_s: float) -> None:
        """Write the next frame, (H, W, 3) uint8; all have the size of the first one, and times increase."""
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
