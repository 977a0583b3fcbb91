"""Arrays of an npz file that describes a whole split: RawDataError when it is cut or of another kind."""

from __future__ import annotations

from maskhand.adapters.base import RawDataError
from maskhand.arrays import Array
from maskhand.hand.array_archive import UnreadableArchiveError, read_array_archive
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError

_MOST_BYTES = 1 << 32
"""Of an array; HaMeR's largest published one has 2 MB."""


def read_npz_arrays(data: bytes, uri: str, names: tuple[str, ...]) -> dict[str, Array]:
    """The named arrays that the file holds; RawDataError when it was cut or asks for more than arrays."""
    try:
        return read_array_archive(data, uri, names, _MOST_BYTES)
    except UnsafePickleError as error:
        raise RawDataError(str(error)) from None
    except UnreadablePickleError as error:
        raise RawDataError(f"{error}; copy the file again") from None
    except UnreadableArchiveError as error:
        raise RawDataError(f"{error}; it holds {len(data)} bytes and was probably cut, copy it again") from None
