"""Files that decide a result, taken to other machines by content: a path may name another file there, or none.

The driver reads a folder (`CarriedFolder.of`), a process elsewhere takes it in (`take_in`); from then on `here` gives,
for a path of the driver, a path to the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from maskhand import storage
from maskhand.errors import MaskhandError

_PACKAGE = Path(__file__).parent

_taken_in: dict[str, tuple[str, Path]] = {}
"""The driver's name of a folder -> its digest, and where its files are on this machine."""


class OtherFileError(MaskhandError, ValueError):
    """A file of this machine is not the one that the driver has; the message names it and says what to do."""


@dataclass(frozen=True)
class CarriedFolder:
    """Files of one folder with their content."""

    path: str
    """The folder on the driver's machine, absolute."""
    shipped_as: str | None
    """The folder's place within the package, where it ships with it: installations lie elsewhere on other machines."""
    files: tuple[tuple[str, bytes], ...] = field(repr=False)
    """Name and content, sorted by name."""
    digest: str
    """12 hex digits over names and contents."""

    @classmethod
    def of(cls, folder: str | Path, names: Iterable[str]) -> Self:
        """Those files of `folder` that are there."""
        path = Path(folder).absolute()
        files = tuple((name, (path / name).read_bytes()) for name in sorted(set(names)) if (path / name).is_file())
        return cls(str(path), _shipped_as(path), files, _digest(files))

    def take_in(self) -> None:
        """Have `here` find these files on this machine: in the same folder where it holds the same, else in a copy.

        Raises OtherFileError when the content is damaged, StorageError when no copy can be written.
        """
        if _taken_in.get(self.path, ("",))[0] == self.digest:
            return
        if _digest(self.files) != self.digest:
            raise OtherFileError(f"{self.path}: its files arrived damaged on {socket.gethostname()}; start again")
        for own in filter(None, (self.path, self.shipped_as and str(_PACKAGE / self.shipped_as))):
            if all(_holds(Path(own) / name, content) for name, content in self.files):
                place = Path(own)
                break
        else:
            place = _private_folder() / self.digest
            for name, content in self.files:
                if not _holds(place / name, content):
                    storage.write_bytes_atomic(place / name, content)
        _taken_in[self.path] = (self.digest, place)
        if self.shipped_as is not None:
            _taken_in[str(_PACKAGE / self.shipped_as)] = (self.digest, place)


@dataclass(frozen=True)
class NamedFile:
    """A file that is too large to be carried: a machine has it under the same path, and its digest is compared."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: str | Path) -> Self:
        return cls(str(path), storage.sha256(path))

    def check(self) -> None:
        """Raises OtherFileError where this machine's file is another one, MissingFileError where there is none."""
        found = storage.sha256(self.path)
        if found != self.sha256:
            raise OtherFileError(
                f"{self.path}: on {socket.gethostname()} its sha256 is {found[:12]}..., and {self.sha256[:12]}... on "
                "the machine that started the work; copy that file to every machine"
            )


def here(path: str | Path) -> Path:
    """Where the file or folder that the driver calls `path` is on this machine; `path` itself for all others."""
    path = Path(path).absolute()
    for folder in (path, path.parent):
        if str(folder) in _taken_in:
            return _taken_in[str(folder)][1] / path.relative_to(folder)
    return path


def _shipped_as(path: Path) -> str | None:
    return path.relative_to(_PACKAGE).as_posix() if path.is_relative_to(_PACKAGE) else None


def _digest(files: tuple[tuple[str, bytes], ...]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _private_folder() -> Path:
    """A folder for copies that other users of the machine can neither read (licensed models) nor have prepared."""
    folder = Path(tempfile.gettempdir()) / f"maskhand-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise storage.StorageError(
            f"{folder}: cannot be made ({(error.strerror or str(error)).lower()}), but models from the machine that "
            "started the work are kept there; set TMPDIR to a folder that can be written"
        ) from error
    if about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise storage.StorageError(
            f"{folder}: expected a folder of one's own that nobody else may enter (mode 700); delete it"
        )
    return folder
