"""Label files that hold one sample each (HO-3D's pickles, DexYCB's npz): read in the worker, rejected by reason.

A broken file costs its own sample only, so everything here raises SampleError:
`missing_label` (no such file), `bad_label` (cut, or not of its kind), `unsafe_pickle` (asks for more than arrays),
`missing_field` (a key of the published structure is absent), `not_annotated` (the key is there and empty).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskhand import storage
from maskhand.arrays import Array
from maskhand.hand.array_archive import UnreadableArchiveError, read_array_archive
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle
from maskhand.json_text import JsonError, parse_json
from maskhand.sample import SampleError

_MOST_BYTES = 1 << 28
"""Of an array in the label of one image."""


def read_pickled_fields(key: str, uri: str) -> Mapping[str, Any]:
    """The dictionary of a pickled label file."""
    data = _read(key, uri)
    try:
        fields = read_array_pickle(data, uri)
    except UnsafePickleError as error:
        raise SampleError("unsafe_pickle", f"{key}: {error}") from None
    except UnreadablePickleError as error:
        raise SampleError("bad_label", f"{key}: {error}; copy it again") from None
    if not isinstance(fields, dict):
        raise SampleError("bad_label", f"{key}: {uri} holds a {type(fields).__name__}, expected a dictionary of fields")
    return fields


def read_npz_fields(key: str, uri: str, names: tuple[str, ...]) -> Mapping[str, Array]:
    """The named arrays of an npz file, those that it holds."""
    data = _read(key, uri)
    try:
        return read_array_archive(data, uri, names, _MOST_BYTES)
    except UnsafePickleError as error:
        raise SampleError("unsafe_pickle", f"{key}: {error}") from None
    except (UnreadableArchiveError, UnreadablePickleError) as error:
        raise SampleError("bad_label", f"{key}: {error}; copy it again") from None


def field(where: str, fields: Mapping[str, Any], name: str) -> Any:
    """One field that the published structure has; SampleError when it is absent or empty. For `where` see `numbers`."""
    if name not in fields:
        known = ", ".join(sorted(str(n) for n in fields)) or "nothing"
        raise SampleError("missing_field", f"{where}: expected {name!r} among the fields, found {known}")
    if fields[name] is None:
        raise SampleError("not_annotated", f"{where}: {name!r} is empty, so the hand is not annotated in this frame")
    return fields[name]


def _read(key: str, uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except storage.MissingFileError as error:
        raise SampleError("missing_label", f"{key}: {error}") from None
    except storage.NotAFileError as error:
        raise SampleError("bad_label", f"{key}: {error}") from None


def read_json_fields(key: str, uri: str) -> Any:
    """The value of a JSON file that belongs to one sample."""
    try:
        return parse_json(_read(key, uri))
    except JsonError as error:
        raise SampleError("bad_label", f"{key}: {uri}: {error}; copy it again") from None
