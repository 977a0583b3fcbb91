"""A JSON list with a table per sample, read row by row.

The meshes of HO-3D's evaluation set are one file of a gigabyte: parsed at once it would stand in memory as 50 million
Python numbers. Here the text passes through in pieces and each row becomes a float32 array.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import RawDataError

_PIECE = 4 << 20
_BETWEEN_ROWS = " \t\r\n,"
_CUT_NUMBER = 32
"""A parser that stops this close to the end of a piece may have met a number that continues in the next one."""


@dataclass(frozen=True)
class JsonRows:
    rows: list[Any]
    """A float32 array per sample; what is not a table of numbers stays as it was read, to be rejected as a sample."""
    sha256: str


def read_json_rows(uri: str) -> JsonRows:
    """Rows of a file `[row, row, ...]`; RawDataError when it is cut or something else."""
    digest = hashlib.sha256()
    rows = [_as_array(row) for row in _rows(uri, digest)]
    return JsonRows(rows, digest.hexdigest())


def _rows(uri: str, digest: Any) -> Iterator[Any]:
    pieces, decoder = _text(uri, digest), json.JSONDecoder()
    text, position, opened, why = "", 0, False, "the file is empty"
    while True:
        while position < len(text) and text[position] in _BETWEEN_ROWS:
            position += 1
        if position < len(text):
            if not opened:
                _check_opening(uri, text[position:])
                opened, position, why = True, position + 1, "the list is not closed"
                continue
            if text[position] == "]":
                for _ in pieces:  # the digest covers the whole file
                    pass
                return
            try:
                row, position = decoder.raw_decode(text, position)
                yield row
                continue
            except json.JSONDecodeError as error:
                why = str(error)
                if error.pos < len(text) - _CUT_NUMBER:
                    raise RawDataError(f"{uri}: not valid JSON ({why}); copy it again") from None
        # The row is not whole as far as this piece goes.
        text, position = text[position:] + _next(uri, pieces, why), 0


def _check_opening(uri: str, text: str) -> None:
    if not text.startswith("["):
        raise RawDataError(f"{uri}: expected a JSON list with an entry per sample, it begins with {text[:20]!r}")


def _text(uri: str, digest: Any) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with storage.open_stream(uri) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            yield decoder.decode(piece)


def _next(uri: str, pieces: Iterator[str], why: str) -> str:
    piece = next(pieces, None)
    if piece is None:
        raise RawDataError(f"{uri}: not valid JSON ({why}); the file was probably cut, copy it again")
    return piece


def _as_array(row: Any) -> Any:
    try:
        return np.asarray(row, dtype=np.float32)
    except (TypeError, ValueError):
        return row
