"""Label files that describe a whole split, read by the plan: RawDataError when one is cut or of another kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from maskhand import storage
from maskhand.adapters.base import RawDataError
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle
from maskhand.json_text import JsonError, parse_json


@dataclass(frozen=True)
class SplitFile:
    uri: str
    value: Any
    sha256: str


def read_json(uri: str) -> SplitFile:
    """Parse a JSON file of annotations."""
    data = storage.read_bytes(uri)
    try:
        return SplitFile(uri, _parsed(data), hashlib.sha256(data).hexdigest())
    except JsonError as error:
        raise RawDataError(
            f"{uri}: {error}; the file holds {len(data)} bytes and was probably cut, copy it again"
        ) from None


def read_pickle(uri: str) -> SplitFile:
    """The arrays and plain values of a pickle; nothing in it is executed."""
    data = storage.read_bytes(uri)
    try:
        return SplitFile(uri, read_array_pickle(data, uri), hashlib.sha256(data).hexdigest())
    except UnsafePickleError as error:
        raise RawDataError(str(error)) from None
    except UnreadablePickleError as error:
        raise RawDataError(f"{error}; the file holds {len(data)} bytes and was probably cut, copy it again") from None


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # NaN is no JSON, yet Python writes it; such a number is one sample's fault and not the file's.
        return parse_json(data)
