"""JSON files that one command leaves in a workspace and another reads; people copy, edit and clear workspaces."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskhand import storage
from maskhand.errors import MaskhandError
from maskhand.json_text import JsonError, parse_json_object


class KeptFileError(MaskhandError, ValueError):
    """A file of a workspace that is no longer what a command wrote; the message says what to do."""


def read_kept(uri: str | Path, remedy: str, **fields: type | tuple[type, ...]) -> dict[str, Any]:
    """The object in a file, with these fields of these types and any others; MissingFileError where there is none.

    remedy: ends the sentence of a KeptFileError, such as `delete it and train again`.
    """
    try:
        values = parse_json_object(storage.read_bytes(uri))
    except JsonError as error:
        raise KeptFileError(f"{uri}: {error}; it was cut short or edited: {remedy}") from None
    for name, kind in fields.items():
        if not isinstance(values.get(name), kind) or isinstance(values[name], bool):
            raise KeptFileError(
                f"{uri}: {name} is {reprlib.repr(values.get(name, 'missing'))}, expected {_named(kind)}; it was edited "
                f"or written by another version: {remedy}"
            )
    return values


def read_steps(path: Path) -> list[dict[str, float]]:
    """The rows of a training's metrics.jsonl in the order of their steps; of a step reported twice, after a restart,
    the last one. No rows where there is no file.

    An incomplete last line, left by a killed process, is ignored; KeptFileError for any other line that is no report.
    """
    by_step: dict[float, dict[str, float]] = {}
    *lines, _cut = storage.read_bytes(path).split(b"\n") if storage.exists(path) else [b""]
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json_object(line)
        except JsonError:
            row = {}
        if not isinstance(row.get("step"), int | float) or not all(isinstance(v, int | float) for v in row.values()):
            raise KeptFileError(
                f"{path}, line {number}: expected a JSON record of numbers with a `step`, found {line[:60]!r}; delete "
                "this line"
            )
        by_step[row["step"]] = row
    return [by_step[step] for step in sorted(by_step)]


def _named(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(_KINDS[one] for one in kinds)


_KINDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "an object {...}",
    list: "a list [...]",
}
