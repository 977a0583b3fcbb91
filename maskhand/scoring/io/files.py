"""Prediction files as people have them: alone, or in a .zip or .gz; anything else is told by what it is."""

from __future__ import annotations

import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from maskhand import local_files
from maskhand.scoring.scores import ScoreError
from maskhand.storage_errors import StorageError

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, gzip.BadGzipFile, lzma.LZMAError, NotImplementedError)
"""Of packed files; RuntimeError for one with a password, NotImplementedError for a method that Python lacks."""
_HEAD = 512
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"BZh", "a .bz2 archive: unpack it"),
    (0, b"\xfd7zXZ\0", "an .xz archive: unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a .7z archive: unpack it"),
    (0, b"Rar!", "a .rar archive: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a .zst archive: unpack it"),
    (257, b"ustar", "a .tar archive: unpack it"),
    (0, b"\x1f\x8b", "packed with gzip: unpack it"),
    (0, b"PK", "a .zip archive (an .npz is one, too): unpack it, or write the format that is expected"),
    (0, b"\x93NUMPY", "a .npy array: write the format that is expected"),
    (0, b"\x89HDF", "an HDF5 file: write the format that is expected"),
    (0, b"MATLAB", "a .mat file: write the format that is expected"),
    (0, b"\x80\x04\x95", "a Python pickle: write the format that is expected"),
    (0, b"\x80\x05\x95", "a Python pickle: write the format that is expected"),
    (0, codecs.BOM_UTF16_LE, "text in UTF-16, as Windows' PowerShell writes it: save it in UTF-8"),
    (0, codecs.BOM_UTF16_BE, "text in UTF-16: save it in UTF-8"),
)
"""(place, bytes there, what such a file is and what to do)."""


def told(head: bytes) -> str | None:
    """What a file of another kind is, from its beginning, and what to do with it; None for any other text."""
    for place, mark, kind in _KINDS:
        if head[place:].startswith(mark):
            return kind
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        return "empty: write it again"
    if text[:1] == b"<":
        return "a web page or XML: was a login page downloaded in its place?"
    return "no text: write the format that is expected" if b"\0" in text else None


@contextmanager
def regular_file(path: Path) -> Iterator[IO[bytes]]:
    """A file for reading. Raises ScoreError where there is none, and for a folder or a pipe, without waiting for it."""
    try:
        file = local_files.open_file(path)
    except StorageError as error:
        raise ScoreError(f"{error}; check the path") from None
    except OSError as error:
        raise ScoreError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with file:
        yield file


@contextmanager
def unpacked(path: Path, ending: str, usual: str) -> Iterator[IO[bytes]]:
    """The content of a text file; of a .zip, as the official servers take, its only file with this ending or the one
    of the usual name; of a .gz, what is packed in it. Raises ScoreError for files of other kinds."""
    try:
        with regular_file(path) as file:
            head = file.read(_HEAD)
            file.seek(0)
            if head.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive, archive.open(_member(path, archive, ending, usual)) as stream:
                    yield stream
            elif head.startswith(b"\x1f\x8b"):
                with gzip.open(file) as stream:
                    inner = stream.read(_HEAD)
                    if kind := told(inner):
                        raise ScoreError(f"{path}: in this .gz is {kind}")
                    stream.seek(0)
                    yield cast(IO[bytes], stream)
            elif kind := told(head):
                raise ScoreError(f"{path}: this file is {kind}")
            else:
                yield file
    except DAMAGE as error:
        raise ScoreError(f"{path}: the .zip or .gz is damaged ({error}); write it again") from None


def _member(path: Path, archive: zipfile.ZipFile, ending: str, usual: str) -> str:
    """The member to read; what macOS adds to an archive is passed over."""
    files = [name for name in archive.namelist() if not name.endswith("/") and not _of_macos(name)]
    names = [name for name in files if name.lower().endswith(ending)]
    named = [name for name in names if Path(name).name.lower() == usual]
    if len(names) != 1 and len(named) != 1:
        held = ", ".join((names or files)[:5]) or "nothing"
        raise ScoreError(f"{path}: expected one {ending} or a {usual} in this .zip, found {held}; pack that file alone")
    return (names if len(names) == 1 else named)[0]


def _of_macos(name: str) -> bool:
    return name.startswith("__MACOSX/") or Path(name).name.startswith("._") or Path(name).name == ".DS_Store"
