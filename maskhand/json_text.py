"""JSON that comes from outside: one error for every way in which a text can fail to be JSON."""

from __future__ import annotations

import json
from typing import Any

from maskhand.errors import MaskhandError


class JsonError(MaskhandError, ValueError):
    """A text that is not usable JSON. The message is the reason alone; whoever reads the file names it."""


def parse_json(data: bytes | str) -> Any:
    """The value of a text, with or without a byte order mark, NaN as Python writes it included. Raises JsonError."""
    try:
        return json.loads(data.removeprefix("\ufeff") if isinstance(data, str) else data)
    except (ValueError, RecursionError) as error:
        raise JsonError(why_not_json(error)) from None


def parse_json_object(data: bytes | str) -> dict[str, Any]:
    """The fields of a text that is one JSON object. Raises JsonError."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise JsonError(f"expected an object {{...}} with named fields, found a {type(value).__name__}")
    return value


def why_not_json(error: ValueError | RecursionError) -> str:
    """The reason in an error of Python's JSON decoder."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
    return "a number in it has thousands of digits"
