"""The pictures of a run as a stream: photos and frames of films, decoded ahead in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from maskhand import storage
from maskhand.arrays import Array
from maskhand.film.video import film_facts, read_frames
from maskhand.predict.camera import PhotoCamera, photo_camera
from maskhand.predict.inputs import Source
from maskhand.predict.photo import decode_photo
from maskhand.predict.records import PredictError

AHEAD = 2
"""Number of pictures decoded ahead."""

T = TypeVar("T")
_END = object()


@dataclass(frozen=True)
class GivenCamera:
    """The given camera of all pictures, in pixels of the upright picture."""

    focal_px: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy."""


@dataclass(frozen=True)
class Place:
    """The position of a run: the next photo or frame to process."""

    source: int = 0
    """Position among the sources."""
    frame: int = 0
    """Position in a film; 0 for a photo."""


@dataclass(frozen=True)
class Picture:
    """A photo or a frame of a film, or why it cannot be read."""

    place: Place
    source: Source
    frame: int | None = None
    """Position in the film, from 0; None for a photo."""
    time_s: float | None = None
    """Time of the frame in the film; None for a photo."""
    size_px: tuple[int, int] | None = None
    """Width and height; None if it cannot be read."""
    image_rgb: Array | None = None
    """(H, W, 3) uint8, upright; None if it cannot be read or is no longer needed."""
    camera: PhotoCamera | None = None
    is_readable: bool = True
    reason: str | None = None
    """Why it cannot be read, or has no hand."""

    @property
    def name(self) -> str:
        """Prefix of the names of its result files."""
        return self.source.name if self.frame is None else f"{self.source.name}_frame{self.frame:06d}"


def pictures(
    sources: Sequence[Source], given: GivenCamera, every: int = 1, start: Place | None = None
) -> Iterator[Picture]:
    """The pictures of the sources from `start` on; frames 0, `every`, 2 `every` ... of a film.

    A file that cannot be read gives one picture with the reason; so does a film at the frame where it breaks off.
    """
    start = start or Place()
    for position in range(start.source, len(sources)):
        source = sources[position]
        place = start if position == start.source else Place(position)
        if source.kind == "film":
            yield from _frames(source, place, given, every)
        else:
            yield _photo(source, place, given)


def count_pictures(sources: Sequence[Source], every: int = 1) -> int:
    """Number of pictures; for films, by the number of frames that their containers state."""
    total = 0
    for source in sources:
        try:
            total += -(-film_facts(source.path).frames // every) if source.kind == "film" else 1
        except PredictError:
            total += 1
    return total


def ahead(items: Iterable[T], count: int = AHEAD) -> Iterator[T]:
    """The items, up to `count` of them produced ahead in a thread. An exception is raised in the item's place."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, "maskhand-decode") as thread:
        waiting: deque[Future[object]] = deque()
        try:
            while True:
                while len(waiting) <= count:
                    waiting.append(thread.submit(next, iterator, _END))
                item = waiting.popleft().result()
                if item is _END:
                    return
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()


def _photo(source: Source, place: Place, given: GivenCamera) -> Picture:
    try:
        encoded = storage.read_bytes(source.path)
        image = decode_photo(encoded, source.path)
        size = (image.shape[1], image.shape[0])
        camera = photo_camera(size, focal_px=given.focal_px, intrinsics=given.intrinsics, encoded=encoded)
    except (storage.StorageError, PredictError) as error:
        return _unreadable(place, source, error)
    return Picture(place, source, size_px=size, image_rgb=image, camera=camera)


def _frames(source: Source, place: Place, given: GivenCamera, every: int) -> Iterator[Picture]:
    camera: PhotoCamera | None = None
    size = (0, 0)
    index = place.frame
    try:
        for frame in read_frames(source.path, every):
            if frame.index < place.frame:
                continue  # skipped by count: seeking could end at another frame
            index = frame.index
            if camera is None:
                size = (frame.image_rgb.shape[1], frame.image_rgb.shape[0])
                camera = photo_camera(size, focal_px=given.focal_px, intrinsics=given.intrinsics)
            yield Picture(Place(place.source, index), source, index, frame.time_s, size, frame.image_rgb, camera)
    except PredictError as error:
        yield _unreadable(Place(place.source, index), source, error)


def _unreadable(place: Place, source: Source, error: Exception) -> Picture:
    return Picture(place, source, is_readable=False, reason=str(error).removeprefix(f"{source.path}: "))
