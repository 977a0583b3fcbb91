"""The tar of a shard as an open file: its images are in the system's cache, which can give them up, instead of in the
memory of every process that reads the shard."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskhand import storage

_CHUNK = 1 << 20

CACHE = "MASKHAND_CACHE"
"""Environment variable: a folder on this machine with copies of the tars of remote sets, for all processes."""


class CachedTar:
    """An open tar that can be read at any place, whatever happens to its name.

    A local file is the file itself, an object its copy: in the cache, under its sha256, or without a name in the
    temporary folder (`TMPDIR`). Raises MissingFileError and StorageError.
    """

    def __init__(self, uri: str, sha256: str) -> None:
        self.uri = uri
        self.named = True
        """Is it still in a folder, where the next pass will find it?"""
        if not storage.is_remote(uri):
            self._descriptor = _descriptor(uri)
        elif cache := os.environ.get(CACHE):
            self.uri = _cached(uri, Path(cache) / f"{sha256}.tar")
            self._descriptor = _descriptor(self.uri)
        else:
            self._descriptor, self.named = _nameless_copy(uri), False
        weakref.finalize(self, os.close, self._descriptor)

    def state(self) -> tuple[int, ...]:
        """Another one for another file, and when this one is written to."""
        about = os.fstat(self._descriptor)
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns

    def read(self, begin: int = 0, end: int | None = None) -> bytes:
        """The bytes begin..end-1, of the whole file by default."""
        end = os.fstat(self._descriptor).st_size if end is None else end
        pieces = []
        while begin < end:
            # The system gives at most 2 GiB at a time.
            if not (piece := os.pread(self._descriptor, end - begin, begin)):
                raise storage.StorageError(f"{self.uri}: it became shorter while it was being read")
            pieces.append(piece)
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _descriptor(path: str) -> int:
    with storage.open_stream(path) as stream:
        return os.dup(stream.fileno())


def _cached(uri: str, copy: Path) -> str:
    """The path of an object's copy, which is fetched unless another process, or an earlier pass, has done so."""
    if not copy.exists():
        with storage.open_stream(uri) as stream, storage.atomic_writer(copy) as write:
            while piece := stream.read(_CHUNK):
                write(piece)
    return str(copy)


def _nameless_copy(uri: str) -> int:
    """The descriptor of a copy without a name."""
    try:
        with tempfile.TemporaryFile() as copy, storage.open_stream(uri) as stream:
            shutil.copyfileobj(stream, copy, _CHUNK)
            copy.flush()
            return os.dup(copy.fileno())
    except storage.StorageError:
        raise
    except OSError as error:
        raise storage.StorageError(
            f"{tempfile.gettempdir()}: no copy of {uri} can be made here ({error.strerror}); set TMPDIR to a folder "
            "with more room"
        ) from error


@dataclass(frozen=True)
class CachedMembers(Mapping[str, bytes]):
    """The members of one key, read from the file on access."""

    file: CachedTar
    places: Mapping[str, slice]
    in_memory: Mapping[str, bytes]
    """Those that are so small that reading them again costs more than their memory."""

    def __getitem__(self, extension: str) -> bytes:
        if extension in self.in_memory:
            return self.in_memory[extension]
        place = self.places[extension]
        return self.file.read(place.start, place.stop)

    def __contains__(self, extension: object) -> bool:
        return extension in self.places  # a Mapping's own would read the member

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)
