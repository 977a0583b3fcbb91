"""npz files as shards hold them: bytes that depend on the arrays alone, and a reader fast enough for a loader.

`numpy.load` spends most of a third of a millisecond per file on looking its few small arrays up; a training loader
has about as long for a whole sample. Its format is simple: a zip file of uncompressed `.npy` entries.
"""

from __future__ import annotations

import ast
import io
import struct
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from maskhand.shards.layout import ShardError

_END = struct.Struct("<4s4xHHII2x")
_ENTRY = struct.Struct("<4s6xH8xIIHHH8xI")
_LOCAL_LENGTHS = struct.Struct("<26xHH")
_NPY = b"\x93NUMPY\x01\x00"


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An npz file whose bytes depend on the arrays alone (numpy gives its entries a fixed date)."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ShardError(f"array {name!r} holds Python objects; only numbers, flags and text are stored")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(arrays[name]) for name in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def decode_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file. Files of any other form than `encode_arrays` gives are left to numpy."""
    arrays = _plain_entries(data)
    if arrays is not None:
        return arrays
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _plain_entries(data: bytes) -> dict[str, np.ndarray] | None:
    """None where something is not as `numpy.savez` writes it. Checksums are left out: a tar has been checked whole."""
    if len(data) < _END.size:
        return None
    mark, entries, _, _, place = _END.unpack_from(data, len(data) - _END.size)
    if mark != b"PK\5\6":
        return None
    arrays = {}
    for _ in range(entries):
        mark, method, stored, _, name_length, extra, comment, local = _ENTRY.unpack_from(data, place)
        name = data[place + 46 : place + 46 + name_length].decode()
        place += 46 + name_length + extra + comment
        local_name, local_extra = _LOCAL_LENGTHS.unpack_from(data, local)
        begin = local + 30 + local_name + local_extra
        if mark != b"PK\1\2" or method or not name.endswith(".npy") or not data.startswith(_NPY, begin):
            return None
        header_end = begin + 10 + int.from_bytes(data[begin + 8 : begin + 10], "little")
        dtype, shape, in_c_order = _header(data[begin + 10 : header_end])
        flat = np.frombuffer(data, dtype, (begin + stored - header_end) // dtype.itemsize, header_end)
        arrays[name[:-4]] = flat.reshape(shape, order="C" if in_c_order else "F").copy()
    return arrays


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """The header of a .npy entry, a Python literal; shards have a few dozen different ones."""
    fields = ast.literal_eval(text.decode("latin1"))
    return np.dtype(fields["descr"]), fields["shape"], not fields["fortran_order"]
