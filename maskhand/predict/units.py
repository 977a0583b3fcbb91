"""Division of a run into units of work: consecutive photos, or a span of a film's frames.

The units depend only on the files and on `every`, never on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from maskhand.film.video import film_facts, read_frames
from maskhand.predict.box_formats import GivenBoxes
from maskhand.predict.camera import PhotoCamera, photo_camera
from maskhand.predict.inputs import Source
from maskhand.predict.pictures import GivenCamera, Picture, Place, pictures
from maskhand.predict.records import PredictError

UNITS: Final = 64
"""Approximate number of units, within the sizes below: work is balanced, and a killed run loses little."""
SMALLEST: Final = 8
LARGEST: Final = 512
"""Limits on the number of pictures of a unit."""
SPANS: Final = 32
"""Maximum number of units of one film. Each decodes the film up to its first frame: 16 times the film in total, which
takes a few percent of the time for predicting all its frames."""


@dataclass(frozen=True)
class Unit:
    """A part of a run that one worker processes."""

    sources: tuple[Source, ...]
    """Consecutive photos, or one film."""
    boxes: tuple[GivenBoxes | None, ...] | None = None
    """The boxes of each photo, if boxes were given."""
    start: int = 0
    """First frame of the film, a multiple of `every`."""
    stop: int | None = None
    """The frame after the last one; None: to the end of the film."""
    planned: int = 0
    """Number of pictures; for a film by the frame count that its container states."""


@dataclass(frozen=True)
class UnitPlace:
    """The position of a unit in its run, stored in `run.json` because a deleted film cannot be divided again."""

    first: int
    """Index of its first file among all files of the run."""
    files: int
    start: int
    stop: int | None
    planned: int
    """`start`, `stop` and `planned` as in `Unit`."""

    def unit(self, sources: Sequence[Source], boxes: Sequence[GivenBoxes | None] | None) -> Unit:
        """The unit, given all files of the run, and their boxes if there are any."""
        own = slice(self.first, self.first + self.files)
        given = None if boxes is None else tuple(boxes[own])
        return Unit(tuple(sources[own]), given, self.start, self.stop, self.planned)

    @staticmethod
    def read(rows: Any, where: str) -> list[UnitPlace]:
        """The units in `run.json`. Raises PredictError for other fields than these."""
        names = {field.name for field in fields(UnitPlace)}
        if not (isinstance(rows, list) and all(isinstance(row, dict) and row.keys() == names for row in rows)):
            raise PredictError(
                f"{where}: expected a list of objects with {', '.join(sorted(names))}; --again makes the results there "
                "anew, or choose another --out"
            )
        return [UnitPlace(**row) for row in rows]


def unit_places(sources: Sequence[Source], every: int, kept: Sequence[UnitPlace] = ()) -> list[UnitPlace]:
    """The places of a run's units: the existing ones, followed by the units of new files."""
    first = max((place.first + place.files for place in kept), default=0)
    places = {source.path: place for place, source in enumerate(sources)}
    new = [
        UnitPlace(places[unit.sources[0].path], len(unit.sources), unit.start, unit.stop, unit.planned)
        for unit in cut(sources[first:], every)
    ]
    return [*kept, *new]


def cut(sources: Sequence[Source], every: int) -> list[Unit]:
    """The units of a run, in the order of its sources, without boxes.

    every: frames 0, `every`, 2 `every` ... of a film are processed.
    """
    counts = [_frame_count(source, every) if source.kind == "film" else 1 for source in sources]
    size = min(LARGEST, max(SMALLEST, -(-sum(counts) // UNITS)))
    units: list[Unit] = []
    waiting: list[int] = []

    def close() -> None:
        if waiting:
            units.append(Unit(tuple(sources[k] for k in waiting), planned=len(waiting)))
            waiting.clear()

    for k, (source, count) in enumerate(zip(sources, counts, strict=True)):
        if source.kind == "film":
            close()
            units += _spans(source, count, every, size)
            continue
        waiting.append(k)
        if len(waiting) == size:
            close()
    close()
    return units


def unit_pictures(unit: Unit, given: GivenCamera, every: int) -> Iterator[Picture]:
    """The pictures of a unit, as `pictures` does for a run; their places are relative to the unit."""
    if unit.sources[0].kind == "film":
        return _frames(unit, given, every)
    return pictures(unit.sources, given, every)


def _frame_count(film: Source, every: int) -> int:
    try:
        return -(-film_facts(film.path).frames // every)
    except PredictError:  # reported when its unit is processed
        return 0


def _spans(film: Source, count: int, every: int, size: int) -> list[Unit]:
    """count: frames to process by the container's frame count, which may be wrong: so the last span has no end."""
    size = max(size, -(-count // SPANS))
    starts = range(0, max(count, 1), size)
    return [
        Unit(
            (film,),
            start=start * every,
            stop=None if start == starts[-1] else (start + size) * every,
            planned=min(size, count - start),
        )
        for start in starts
    ]


def _frames(unit: Unit, given: GivenCamera, every: int) -> Iterator[Picture]:
    (film,) = unit.sources
    camera: PhotoCamera | None = None
    size = (0, 0)
    position = unit.start
    try:
        for frame in read_frames(film.path, every, unit.start):
            if unit.stop is not None and frame.index >= unit.stop:
                return
            position = frame.index
            if camera is None:
                size = (frame.image_rgb.shape[1], frame.image_rgb.shape[0])
                camera = photo_camera(size, focal_px=given.focal_px, intrinsics=given.intrinsics)
            yield Picture(Place(0, frame.index), film, frame.index, frame.time_s, size, frame.image_rgb, camera)
    except PredictError as error:
        if camera is None and unit.start:
            return  # already reported by the unit before, which reads up to this one's start
        reason = str(error).removeprefix(f"{film.path}: ")
        yield Picture(Place(0, position), film, is_readable=False, reason=reason)
