"""Read annotation files of any size piece by piece: only the record at hand is in memory.

The standard library's own scanner decodes the records. It is faster here than ijson, which needs a pass over the file
for each of its parts, and it knows the `NaN` that Python writes: a bad number costs one sample and not the file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from maskhand import storage
from maskhand.adapters.base import RawDataError
from maskhand.json_text import why_not_json

_PIECE = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode
_LONGEST_TOKEN = 16
"""An error this close to the end of the text may be a number, word or escape that goes on in the next piece."""


class JsonCursor:
    """A place in a JSON file that only moves forward.

    Whoever iterates over `members()` must read each member's value, by `value()`, `values()` or another `members()`.
    """

    def __init__(self, uri: str, stream: IO[bytes]) -> None:
        self.uri = uri
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._text, self._at, self._ended = "", 0, False

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file; complete after `open_json`'s block."""
        return self._sha256.hexdigest()

    def members(self) -> Iterator[str]:
        """The keys of the object at this place, in the file's order."""
        for _ in self._inside("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise self._broken(f"expected a quoted key, found {key!r}")
            self._take(":")
            yield key

    def values(self) -> Iterator[Any]:
        """The decoded elements of the list at this place."""
        for _ in self._inside("[", "]"):
            yield self.value()

    def value(self) -> Any:
        """The whole value at this place, decoded."""
        self._peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - _LONGEST_TOKEN or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise self._broken(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise RawDataError(f"{self.uri}: {why_not_json(error)}; is this the right file?") from None
            else:
                # A number that touches the end of the text may have more digits.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            self._read_more()

    def finish(self) -> None:
        """Read to the end, so that the digest covers the file; nothing but space may follow."""
        if self._peek(end_allowed=True):
            raise self._broken("more text after the end")

    def _inside(self, opening: str, closing: str) -> Iterator[None]:
        self._take(opening)
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == closing:
                self._at += 1
                return
            self._take(",")

    def _take(self, expected: str) -> None:
        found = self._peek()
        if found != expected:
            if expected in "{[":
                kind = {"{": "an object {...}", "[": "a list [...]"}[expected]
                raise RawDataError(f"{self.uri}: expected {kind} where {found!r} stands; is this the right file?")
            raise self._broken(f"expected {expected!r}, found {found!r}")
        self._at += 1

    def _peek(self, end_allowed: bool = False) -> str:
        """The next character that is not space; '' at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                if end_allowed:
                    return ""
                raise self._broken("it ends too early")
            self._read_more()

    def _read_more(self) -> None:
        rest = self._text[self._at :]
        # Reading as much again as waits already keeps a huge single value from being decoded over and over.
        data = self._stream.read(max(_PIECE, len(rest)))
        self._sha256.update(data)
        self._bytes += len(data)
        self._ended = not data
        try:
            self._text, self._at = rest + self._utf8.decode(data, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise self._broken(str(error)) from None

    def _broken(self, detail: str, at: int | None = None) -> RawDataError:
        size, place = storage.size(self.uri), self._bytes - len(self._text) + (self._at if at is None else at)
        return RawDataError(
            f"{self.uri}: not valid JSON ({detail}, near byte {place}); the file holds {size} bytes and was probably "
            "cut, copy it again"
        )

    def records(self, name: str, fields: str, add: Callable[[Any], object]) -> None:
        """Pass each element of the list at this place to `add`; RawDataError for one that lacks the `fields`.

        name: of the list, for the sentence.
        """
        for number, record in enumerate(self.values()):
            try:
                add(record)
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
                raise RawDataError(
                    f"{self.uri}: {name}[{number}] is {reprlib.repr(record)}, expected an object with {fields} "
                    f"({type(error).__name__}: {error}); is this the right file?"
                ) from None


@contextmanager
def open_json(uri: str) -> Iterator[JsonCursor]:
    """A cursor at the start of a file, which must be used up; RawDataError when it is cut or not JSON."""
    with storage.open_stream(uri) as stream:
        cursor = JsonCursor(uri, stream)
        yield cursor
        cursor.finish()
