"""npz files as shards hold them: bytes that depend on the arrays alone, and a reader fast enough for a loader.

`numpy.load` spends most of a third of a millisecond per file on looking its few small arrays up; a training loader
has about as long for a whole sample. Its format is simple: a zip file of uncompressed `.npy` entries.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from maskhand.shards.layout import ShardError

_END = struct.Struct("<4s4xHHII2x")
_ENTRY = struct.Struct("<4s6xH8xIIHHH8xI")
_LOCAL_LENGTHS = struct.Struct("<26xHH")
# The writer's: zip64 fields in local headers, as numpy asks for them, and a date that is fixed, 1 January 1980.
_WRITE_LOCAL, _WRITE_EXTRA = struct.Struct("<4s5H3I2H"), struct.Struct("<2H2Q")
_WRITE_ENTRY, _WRITE_END = struct.Struct("<4s4B4H3I5H2I"), struct.Struct("<4s4H2IH")
_CHECKSUM = struct.Struct("<I")
_DATE, _IN_EXTRA = 0x21, 0xFFFFFFFF
_NPY = b"\x93NUMPY\x01\x00"


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An npz file whose bytes depend on the arrays alone: those of `numpy.savez` with the names sorted."""
    given = [(name, np.asarray(arrays[name])) for name in sorted(arrays)]
    # Arrays of one kind and shape give files that differ in their data and checksums alone.
    blank = _blank_file(tuple((name, a.dtype, a.shape, _in_c_order(a)) for name, a in given))
    file = bytearray(blank.content)
    for (_, array), entry in zip(given, blank.entries, strict=True):
        data = array.tobytes("C" if entry.in_c_order else "F")
        file[entry.data : entry.data + len(data)] = data
        checksum = zlib.crc32(data, entry.header_checksum)
        _CHECKSUM.pack_into(file, entry.local + 14, checksum)
        _CHECKSUM.pack_into(file, entry.listed + 16, checksum)
    return bytes(file)


def _in_c_order(array: np.ndarray) -> bool:
    return array.flags.c_contiguous or not array.flags.f_contiguous


@dataclass(frozen=True)
class _BlankEntry:
    """Where an array stands in a file: offsets of its local header, of its data and of its line in the directory."""

    in_c_order: bool
    header_checksum: int
    local: int
    data: int
    listed: int


@dataclass(frozen=True)
class _BlankFile:
    """A file without data and checksums."""

    content: bytes
    entries: tuple[_BlankEntry, ...]


@lru_cache(maxsize=64)
def _blank_file(kinds: tuple[tuple[str, np.dtype, tuple[int, ...], bool], ...]) -> _BlankFile:
    content, places, directory = bytearray(), [], bytearray()
    for name, dtype, shape, in_c_order in kinds:
        if dtype.hasobject:
            raise ShardError(f"array {name!r} holds Python objects; only numbers, flags and text are stored")
        header, label = _header_bytes(dtype, shape, in_c_order), f"{name}.npy".encode("ascii")
        local, size = len(content), len(header) + dtype.itemsize * math.prod(shape)
        content += _WRITE_LOCAL.pack(b"PK\3\4", 45, 0, 0, 0, _DATE, 0, _IN_EXTRA, _IN_EXTRA, len(label), 20)
        content += label + _WRITE_EXTRA.pack(1, 16, size, size) + header
        places.append((in_c_order, zlib.crc32(header), local, len(content), len(directory)))
        content += bytes(size - len(header))
        numbers = (45, 3, 45, 0, 0, 0, 0, _DATE, 0, size, size, len(label), 0, 0, 0, 0, 0o600 << 16, local)
        directory += _WRITE_ENTRY.pack(b"PK\1\2", *numbers) + label
    entries = tuple(_BlankEntry(*place[:4], listed=len(content) + place[4]) for place in places)
    end = _WRITE_END.pack(b"PK\5\6", 0, 0, len(kinds), len(kinds), len(directory), len(content), 0)
    return _BlankFile(bytes(content + directory + end), entries)


def _header_bytes(dtype: np.dtype, shape: tuple[int, ...], in_c_order: bool) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": not in_c_order, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def decode_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file. Files of any other form than `encode_arrays` gives are left to numpy."""
    entries = _entries(data)
    if entries is None:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    arrays = {}
    for entry in entries:
        flat = np.frombuffer(data, entry.dtype, (entry.end - entry.begin) // entry.dtype.itemsize, entry.begin)
        arrays[entry.name] = flat.reshape(entry.shape, order="C" if entry.in_c_order else "F").copy()
    return arrays


def decode_all(files: Sequence[bytes]) -> list[dict[str, np.ndarray]]:
    """`decode_arrays` of each. Files that differ in nothing but their numbers, as those of a shard mostly do, are
    decoded together: an array of all of them at a time."""
    decoded: list[dict[str, np.ndarray] | None] = [None] * len(files)
    by_length: dict[int, list[int]] = {}
    for place, data in enumerate(files):
        by_length.setdefault(len(data), []).append(place)
    for length, places in by_length.items():
        entries = _entries(files[places[0]])
        if not entries or not all(entry.in_c_order for entry in entries):
            continue
        table = np.frombuffer(b"".join([files[place] for place in places]), np.uint8).reshape(len(places), length)
        alike = np.all([(table[:, a:b] == table[0, a:b]).all(axis=1) for a, b in _structure(entries, length)], axis=0)
        names, columns = [e.name for e in entries], [_column(table, e) for e in entries]
        for place, same, arrays in zip(places, alike.tolist(), zip(*columns, strict=True), strict=True):
            if same:
                decoded[place] = dict(zip(names, arrays, strict=True))
    return [decode_arrays(data) if found is None else found for found, data in zip(decoded, files, strict=True)]


def _column(table: np.ndarray, entry: _Entry) -> list[np.ndarray]:
    """An array of every file, from a table (files, bytes)."""
    numbers = table[:, entry.begin : entry.end].copy().view(entry.dtype)
    # A list of rows is made in half of the time of asking for them one by one, but of rows without axes it has numbers.
    return list(numbers.reshape(len(table), *entry.shape)) if entry.shape else [row.reshape(()) for row in numbers]


@dataclass(frozen=True)
class _Entry:
    """Where an array lies in an npz file."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    in_c_order: bool
    begin: int
    end: int
    """First and last byte (exclusive) of its numbers."""
    checksums: tuple[int, int]
    """Where its two checksums are, of 4 bytes each."""


def _entries(data: bytes) -> list[_Entry] | None:
    """None where something is not as `numpy.savez` writes it. Checksums are left out: a tar has been checked whole."""
    if len(data) < _END.size:
        return None
    mark, count, _, _, place = _END.unpack_from(data, len(data) - _END.size)
    if mark != b"PK\5\6":
        return None
    entries = []
    for _ in range(count):
        mark, method, stored, _, name_length, extra, comment, local = _ENTRY.unpack_from(data, place)
        name = data[place + 46 : place + 46 + name_length].decode()
        local_name, local_extra = _LOCAL_LENGTHS.unpack_from(data, local)
        begin = local + 30 + local_name + local_extra
        if mark != b"PK\1\2" or method or not name.endswith(".npy") or not data.startswith(_NPY, begin):
            return None
        header_end = begin + 10 + int.from_bytes(data[begin + 8 : begin + 10], "little")
        header = _header(data[begin + 10 : header_end])
        entries.append(_Entry(name[:-4], *header, header_end, begin + stored, (local + 14, place + 16)))
        place += 46 + name_length + extra + comment
    return entries


def _structure(entries: Sequence[_Entry], length: int) -> list[tuple[int, int]]:
    """The pieces (begin, end) of a file that are neither numbers nor checksums of numbers."""
    numbers = [(e.begin, e.end) for e in entries] + [(at, at + 4) for e in entries for at in e.checksums]
    edges = [0, *(edge for piece in sorted(numbers) for edge in piece), length]
    return list(zip(edges[::2], edges[1::2], strict=True))


@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """The header of a .npy entry, a Python literal; shards have a few dozen different ones."""
    fields = ast.literal_eval(text.decode("latin1"))
    return np.dtype(fields["descr"]), fields["shape"], not fields["fortran_order"]
