"""Arrays of an npz file from outside, object arrays included, without numpy's unpickler.

`np.load` reads an object array (names, dictionaries) by unpickling it, which can run anything; here such a member goes
through the unpickler that knows arrays only, and only when its name is asked for. It also makes room for whatever a
header states; here nothing is inflated beyond a bound, nor made room for before as many bytes are there.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection

import numpy as np
from numpy.lib import format as npy

from maskhand.arrays import Array
from maskhand.errors import MaskhandError
from maskhand.hand.array_pickle import ArrayUnpickler, UnreadablePickleError, UnsafePickleError, read_array_pickle

ZIP = b"PK\3\4"
"""How a zip file begins, and so an npz file."""


class UnreadableArchiveError(MaskhandError, ValueError):
    """Not an npz file, one that was cut or damaged, or one with an array that is too large."""


def read_array_archive(
    data: bytes,
    name: str,
    wanted: Collection[str] | None,
    most_bytes: int,
    unpickler: type[ArrayUnpickler] = ArrayUnpickler,
) -> dict[str, Array]:
    """The wanted arrays (None: all) of an npz file, those that it holds; `name` is the file in error sentences.

    most_bytes: of an array. Raises UnreadableArchiveError, and the errors of `read_array_pickle` for an object array.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            chosen = list(held) if wanted is None else [field for field in wanted if field in held]
            return {
                field: _array(_content(archive, held[field], name, most_bytes), f"{name}: {field}", unpickler)
                for field in chosen
            }
    except (UnreadableArchiveError, UnsafePickleError, UnreadablePickleError):
        raise
    except Exception as error:  # a damaged zip file can raise nearly anything
        raise UnreadableArchiveError(f"{name}: not a whole npz file ({error or type(error).__name__})") from None


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, most_bytes: int) -> bytes:
    if member.file_size > most_bytes:
        raise UnreadableArchiveError(
            f"{name}: {member.filename} takes {member.file_size / 2**20:,.0f} MiB when it is inflated, at most "
            f"{most_bytes / 2**20:,.0f} are read; this is no label file"
        )
    with archive.open(member) as stream:
        # Not read(): without a number it inflates what is there, whatever the size that the file states.
        return stream.read(member.file_size)


def _array(member: bytes, name: str, unpickler: type[ArrayUnpickler]) -> Array:
    stream = io.BytesIO(member)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(stream))
    if read_header is None:
        raise UnreadableArchiveError(f"{name}: an array in a form that is newer than this reader")
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        value = read_array_pickle(stream.read(), name, unpickler)
        if not isinstance(value, np.ndarray):
            raise UnreadablePickleError(f"{name}: the pickle is a {type(value).__name__}, expected an array")
        return value
    if math.prod(shape) * dtype.itemsize != len(member) - stream.tell():
        raise UnreadableArchiveError(f"{name}: its header states another number of values than it holds")
    return np.load(io.BytesIO(member), allow_pickle=False)
