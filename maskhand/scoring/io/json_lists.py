"""Read nested JSON lists of samples a few at a time: FreiHAND's verts of 3,960 hands are 9 million numbers in 200 MB.

The text is cut at the brackets that end a sample, found with numpy, and each piece is parsed by orjson; nobody ever
holds the whole file, nor Python objects for more than one piece.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from maskhand.arrays import Array
from maskhand.json_text import why_not_json
from maskhand.scoring.io.files import unpacked
from maskhand.scoring.scores import ScoreError

_BLOCK = 1 << 23
_OPEN, _CLOSE = ord("["), ord("]")


@dataclass(frozen=True)
class Samples:
    """Some consecutive samples of a file."""

    section: int
    """Which of the file's lists they are from; 0 where the file is a single list."""
    first: int
    """Position of the first of them in its list."""
    values: Array
    """(n, P, 3) float64."""


def read_samples(path: Path, at_once: int = 128, **points: int | None) -> Iterator[Samples]:
    """Samples of a JSON file `[sample, ...]`, or of `[[sample, ...], [sample, ...]]` with more than one section.

    points: name of each section -> points of a sample, which is a list of points x 3 numbers (None: any number, the
    same for all of the section); null and NaN become NaN. Raises ScoreError for a missing, truncated or differently
    built file.
    """
    names, expected = list(points), list(points.values())
    sections = len(names)
    field = f"[{', '.join(names)}]" if sections > 1 else names[0]
    counts = [0] * sections
    pending: list[Any] = []
    current = 0

    def finished(lists: list[Any]) -> Samples:
        values = _to_array(lists, path, names[current], counts[current], expected[current])
        expected[current] = values.shape[1]
        counts[current] += len(values)
        return Samples(current, counts[current] - len(values), values)

    for section, lists in _pieces(path, field, sections):
        if section != current and pending:
            yield finished(pending)
            pending = []
        current = section
        pending += lists
        while len(pending) >= at_once:
            yield finished(pending[:at_once])
            pending = pending[at_once:]
    if pending:
        yield finished(pending)


def _pieces(path: Path, field: str, sections: int) -> Iterator[tuple[int, list[Any]]]:
    """(section, parsed samples) of one block of the file after the other."""
    base = 1 if sections == 1 else 2  # depth outside of samples
    depth = section = 0
    carry, started = b"", False
    with unpacked(path, ".json", "pred.json") as stream:
        while block := stream.read(_BLOCK):
            text = carry + (block if started else block.removeprefix(codecs.BOM_UTF8))
            marks, opening, after = _brackets(text, depth)
            if not (started or text.lstrip()[:1] in b"[") or after.min(initial=0) < 0:
                raise ScoreError(f"{path}: {field}: expected JSON lists of numbers, found {_beginning(text)}")
            started = started or bool(text.strip())
            starts = marks[opening & (after == base + 1)]
            ends = marks[~opening & (after == base)] + 1
            section_ends = marks[~opening & (after == base - 1)]
            whole = len(ends)
            sections_of = section + np.searchsorted(section_ends, starts[:whole])
            place = 0
            for number in np.unique(sections_of):
                if number >= sections:
                    raise ScoreError(f"{path}: {field}: more than {sections} lists of samples")
                own = (sections_of == number).nonzero()[0]
                _check_between(text[place : starts[own[0]]], path, field)
                place = ends[own[-1]]
                yield int(number), _parsed(text[starts[own[0]] : place], path, field)
            _check_between(text[place : starts[whole] if len(starts) > whole else None], path, field)
            section += len(section_ends)
            if len(starts) > whole:
                carry, depth = text[starts[whole] :], base
            else:
                carry, depth = b"", int(after[-1]) if len(after) else depth
    if depth or carry:
        raise ScoreError(f"{path}: {field}: the file ends inside a list; it was cut short, write it again")
    if section != sections:
        raise ScoreError(f"{path}: {field}: expected {sections} lists of samples, found {section}")


def _beginning(text: bytes) -> str:
    """What stands where a list was expected."""
    text = text.lstrip()
    if text[:1] == b"{":
        return f"an object with named fields ({text[:20].decode(errors='replace')} ...); write the lists alone"
    return repr(text[:20])


def _check_between(text: bytes, path: Path, field: str) -> None:
    """ScoreError for anything but brackets, commas and space outside of the samples."""
    if other := text.translate(None, b"[], \t\r\n"):
        raise ScoreError(f"{path}: {field}: expected JSON lists of numbers, found {other[:20]!r} outside of them")


def _brackets(text: bytes, depth: int) -> tuple[Array, Array, Array]:
    """Positions of brackets, whether they open, and the depth after each."""
    letters = np.frombuffer(text, np.uint8)
    marks = ((letters == _OPEN) | (letters == _CLOSE)).nonzero()[0]
    opening = letters[marks] == _OPEN
    return marks, opening, depth + np.where(opening, 1, -1).cumsum()


def _parsed(text: bytes, path: Path, field: str) -> list[Any]:
    whole = b"[" + text + b"]"
    try:
        return list(orjson.loads(whole))
    except orjson.JSONDecodeError:
        pass
    try:  # Python's own json writes NaN and Infinity, which are not JSON
        return list(json.loads(whole))
    except (ValueError, RecursionError) as error:
        raise ScoreError(f"{path}: {field}: not JSON ({why_not_json(error)})") from None


def _to_array(lists: list[Any], path: Path, field: str, first: int, points: int | None) -> Array:
    """(n, points, 3), or a sentence about the first sample that is something else."""
    values = _numbers(lists)
    if values.ndim == 3 and values.shape[2] == 3 and points in (None, values.shape[1]):
        return values
    for number, sample in enumerate(lists, first):
        shape = _numbers(sample).shape
        if len(shape) != 2 or shape[1] != 3 or points not in (None, shape[0]):
            wanted = f"{points or 'some'} x 3 numbers"
            raise ScoreError(f"{path}: {field}: sample {number} is not a list of {wanted} (its shape is {shape})")
        points = shape[0]
    raise ScoreError(f"{path}: {field}: samples {first} to {first + len(lists) - 1} are not lists of points")


def _numbers(lists: Any) -> Array:
    try:
        return np.array(lists, np.float64)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths, or something that is no number
        return np.empty(0)
