"""Read arrays of an .npz file by name, a few rows at a time, and never run what a pickle asks for."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from maskhand.arrays import Array
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle
from maskhand.scoring.io.files import DAMAGE, regular_file, told
from maskhand.scoring.scores import ScoreError

_NUMBERS = "biuf"


@dataclass(frozen=True)
class Npz:
    """An .npz file whose fields are checked when they are read; every error is a sentence."""

    path: Path

    def shape(self, field: str) -> tuple[int, ...]:
        """The shape of a field, without reading it."""
        with self._archive() as archive, self._member(archive, field) as stream:
            shape = self._header(stream, field)[0]
        if not shape:
            raise ScoreError(f"{self.path}: {field} is a single value, expected an array with a row for each sample")
        return shape

    def read(self, field: str, *row: int | None) -> Array:
        """The whole field, (N, *row); None stands for any length."""
        parts = list(self.rows(field, *row))
        return np.concatenate(parts) if parts else np.empty((0, *(n or 0 for n in row)))

    def read_text(self, field: str) -> Array:
        """A field (N,) of strings, bytes or Python strings; anything else comes as the text of its values."""
        with self._archive() as archive, self._member(archive, field) as stream:
            if not self._header(stream, field)[2].hasobject:
                return np.concatenate([*self.rows(field, kinds="biufUS"), np.empty(0, str)]).astype(str)
            try:  # numpy pickles arrays of objects; this reader executes nothing
                return np.asarray(read_array_pickle(stream.read(), f"{self.path}: {field}")).astype(str)
            except (UnsafePickleError, UnreadablePickleError, *DAMAGE) as error:
                raise ScoreError(f"{error}; save it as an array of strings") from None

    def rows(self, field: str, *row: int | None, at_once: int = 1 << 14, kinds: str = _NUMBERS) -> Iterator[Array]:
        """The field (N, *row) in pieces of at most `at_once` rows; None stands for any length. kinds: of its values, as
        numpy names them."""
        with self._archive() as archive, self._member(archive, field) as stream:
            shape, fortran, dtype = self._header(stream, field)
            fits = len(shape) == 1 + len(row) and all(w in (None, n) for w, n in zip(row, shape[1:], strict=False))
            if not fits:
                wanted = ", ".join(["N", *("any" if n is None else str(n) for n in row)])
                raise ScoreError(f"{self.path}: {field} has shape {shape}, expected ({wanted})")
            if dtype.hasobject:
                raise ScoreError(
                    f"{self.path}: {field} holds Python objects, which are not unpickled; save numbers or plain text"
                )
            if dtype.kind not in kinds:
                raise ScoreError(f"{self.path}: {field} holds values of type {dtype}, expected numbers")
            width = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            if fortran or not width:
                data = self._exactly(stream, field, width * shape[0])
                yield np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
                return
            for start in range(0, shape[0], at_once):
                count = min(at_once, shape[0] - start)
                yield np.frombuffer(self._exactly(stream, field, count * width), dtype).reshape(count, *shape[1:])

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        with regular_file(self.path) as file:
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile:
                file.seek(0)
                found = told(file.read(512)) or "something else"
                raise ScoreError(f"{self.path}: not an .npz file but {found}; numpy.savez writes one") from None
            with archive:
                yield archive

    def _member(self, archive: zipfile.ZipFile, field: str) -> zipfile.ZipExtFile:
        try:
            return archive.open(f"{field}.npy")  # type: ignore[return-value]
        except KeyError:
            found = ", ".join(sorted(name.removesuffix(".npy") for name in archive.namelist())) or "nothing"
            raise ScoreError(f"{self.path}: has no array {field!r}; it holds {found}") from None
        except DAMAGE as error:
            raise self._damaged(field, error) from None

    def _header(self, stream: zipfile.ZipExtFile, field: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except ValueError as error:
            raise ScoreError(f"{self.path}: {field} is not a numpy array ({error})") from None
        except DAMAGE as error:
            raise self._damaged(field, error) from None
        return tuple(shape), fortran, dtype

    def _exactly(self, stream: zipfile.ZipExtFile, field: str, size: int) -> bytes:
        try:
            data = stream.read(size)
        except DAMAGE as error:
            raise self._damaged(field, error) from None
        if len(data) != size:
            raise ScoreError(f"{self.path}: {field} ends early; the file was cut short, write it again")
        return data

    def _damaged(self, field: str, error: Exception) -> ScoreError:
        return ScoreError(f"{self.path}: {field} is damaged ({error}); write the file again")
