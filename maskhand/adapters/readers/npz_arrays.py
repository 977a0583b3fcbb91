"""Arrays of an npz file from outside, object arrays included, without numpy's unpickler.

`np.load` reads an object array (names, dictionaries) by unpickling it, which can run anything; here such a member goes
through the unpickler that knows arrays only, and only when its name is asked for.
"""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy

from maskhand.adapters.base import RawDataError
from maskhand.arrays import Array
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle

_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError)


def read_npz_arrays(data: bytes, uri: str, names: tuple[str, ...]) -> dict[str, Array]:
    """The named arrays that the file holds; RawDataError when it was cut or asks for more than arrays."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = {name.removesuffix(".npy"): name for name in archive.namelist()}
            return {name: _array(archive.read(held[name]), f"{uri}: {name}") for name in names if name in held}
    except UnsafePickleError as error:
        raise RawDataError(str(error)) from None
    except UnreadablePickleError as error:
        raise RawDataError(f"{error}; copy the file again") from None
    except _BROKEN as error:
        raise RawDataError(
            f"{uri}: not a whole npz file ({error}); it holds {len(data)} bytes and was probably cut, copy it again"
        ) from None


def _array(member: bytes, name: str) -> Array:
    stream = io.BytesIO(member)
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(stream))
    if header is None or not header(stream)[2].hasobject:
        return np.load(io.BytesIO(member), allow_pickle=False)
    value = read_array_pickle(stream.read(), name)
    if not isinstance(value, np.ndarray):
        raise UnreadablePickleError(f"{name}: the pickle is a {type(value).__name__}, expected an array")
    return value
