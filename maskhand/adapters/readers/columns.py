"""Columns for the millions of annotations of a split: packed bytes per row instead of Python objects.

A published file may have rows that do not fit (a list too short, a null). They are stored as they were given, so that
the reader rejects that one sample with its reason, and every other row stays packed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np

from maskhand.adapters.base import RawDataError

T = TypeVar("T")

_BLOCK = 1024


class FloatColumn:
    """A column of float arrays of one shape. `column[i]` is an array, or the given value where its shape differs."""

    def __init__(self, shape: tuple[int, ...], dtype: type = np.float64) -> None:
        self.shape, self.dtype = shape, dtype
        self._blocks: list[np.ndarray] = []
        self._pending: list[Any] = []
        self._misfits: dict[int, Any] = {}

    def append(self, raw: Any) -> None:
        self._pending.append(raw)
        if len(self._pending) == _BLOCK:
            self._flush()

    def __len__(self) -> int:
        return len(self._blocks) * _BLOCK + len(self._pending)

    def __getitem__(self, row: int) -> Any:
        if row in self._misfits:
            return self._misfits[row]
        block, place = divmod(int(row), _BLOCK)
        return self._pending[place] if block == len(self._blocks) else self._unpack(self._blocks[block][place])

    def _flush(self) -> None:
        try:
            block: np.ndarray = np.array(self._pending, dtype=self.dtype)
            fits = block.shape[1:] == self.shape
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            block = np.stack([self._row(len(self) - _BLOCK + k, raw) for k, raw in enumerate(self._pending)])
        self._blocks.append(self._pack(block))
        self._pending = []

    def _row(self, row: int, raw: Any) -> np.ndarray:
        try:
            values: np.ndarray = np.array(raw, dtype=self.dtype)
        except (TypeError, ValueError, OverflowError):
            values = np.empty(0)
        if values.shape == self.shape:
            return values
        self._misfits[row] = raw
        return np.zeros(self.shape, self.dtype)

    def _pack(self, block: np.ndarray) -> np.ndarray:
        return block

    def _unpack(self, packed: np.ndarray) -> np.ndarray:
        return packed


class BoolColumn(FloatColumn):
    """A column of arrays of zeros and ones, a bit each."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)

    def _pack(self, block: np.ndarray) -> np.ndarray:
        rows = block.reshape(len(block), -1)
        for k in np.flatnonzero(((rows != 0) & (rows != 1)).any(axis=1)):
            self._misfits[len(self) - _BLOCK + int(k)] = block[k].copy()
        return np.packbits(rows != 0, axis=1)

    def _unpack(self, packed: np.ndarray) -> np.ndarray:
        return np.unpackbits(packed, count=int(np.prod(self.shape))).reshape(self.shape)


class DictionaryColumn:
    """A column of repeating values, such as names of sequences: each value is stored once, and a code per row."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._codes: dict[Hashable, int] = {}
        self._rows = array("i")

    def append(self, value: Any) -> None:
        # The type belongs to the key, since 1, 1.0 and True are equal but are not written alike.
        code = self._codes.setdefault((type(value), value), len(self.values))
        if code == len(self.values):
            self.values.append(value)
        self._rows.append(code)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Any:
        return self.values[self._rows[row]]

    def codes(self) -> np.ndarray:
        """(N,) int32 position of each row's value in `values`."""
        return np.array(self._rows, dtype=np.int32)


class TextColumn:
    """A column of short texts that differ, one after the other in one piece of memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        self._data += text.encode()
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        return self._data[self._ends[row] : self._ends[row + 1]].decode()


class PathColumn:
    """A column of relative paths: folders repeat, names do not."""

    def __init__(self) -> None:
        self._folders, self._names = DictionaryColumn(), TextColumn()

    def append(self, path: str) -> None:
        folder, slash, name = path.rpartition("/")
        self._folders.append(folder + slash)
        self._names.append(name)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> str:
        return self._folders[row] + self._names[row]


class LazySequence(Sequence[T], Generic[T]):
    """A sequence whose elements are computed on access."""

    def __init__(self, count: int, element: Callable[[int], T]) -> None:
        self._count, self._element = count, element

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> list[T]: ...
    def __getitem__(self, position: int | slice) -> T | list[T]:
        if isinstance(position, slice):
            return [self._element(k) for k in range(*position.indices(self._count))]
        if not -self._count <= position < self._count:
            raise IndexError(position)
        return self._element(int(position) % self._count)


def repeated_ids(ids: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows with the same id, next to each other in the file's order; empty where ids are unique."""
    known = np.array(ids, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    again = np.flatnonzero(known[order[1:]] == known[order[:-1]])
    return [(int(order[k]), int(order[k + 1])) for k in again]


def check_unique_images(uri: str, ids: Sequence[int], paths: PathColumn) -> None:
    """RawDataError where two images of a label file have the same id, so that nobody knows which one a label means."""
    for first, second in repeated_ids(ids):
        if paths[first] != paths[second]:
            raise RawDataError(
                f"{uri}: the image id {ids[first]} is there twice, for {paths[first]} and for {paths[second]}, and "
                "nobody knows which of them its annotations mean; were two files joined? Give those "
                "of one of them, and of their annotations, other numbers first"
            )


def rows_of_ids(ids: Sequence[int] | np.ndarray, wanted: Sequence[int] | np.ndarray) -> np.ndarray:
    """(N,) int64 row of each wanted id among `ids`, -1 where it is not there."""
    known, sought = np.array(ids, dtype=np.int64), np.array(wanted, dtype=np.int64)
    if not len(known):
        return np.full(len(sought), -1)
    # Stable and from the right: of repeated ids the last one counts, as in a dictionary.
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known[order], sought, side="right") - 1
    rows = order[np.maximum(places, 0)]
    return np.where((places >= 0) & (known[rows] == sought), rows, -1)
