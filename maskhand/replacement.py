"""Local files and folders put in place at once: readers see the old one or the whole new one.

A file also survives a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TEMPORARY = ".partial"
"""How the names of files end that are not there for good."""


def is_unfinished(path: Path) -> bool:
    """Is this a file that a killed `replacement` left, or one that is being written?"""
    return path.name.endswith(TEMPORARY)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` when the block ends, but not in an error.

    Folders above are made. OSError as the system gives it, also for a path that is a pipe or a device.
    """
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _to_disk(path.parent)


def move(source: Path, path: Path) -> None:
    """Put a file of the same file system in the place of `path`. OSError as for `replacement`."""
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _to_disk(source)
    os.replace(source, path)
    _to_disk(path.parent)


def _check_replaceable(path: Path) -> None:
    """A rename would put a file in the place of /dev/stdout, or of the pipe that somebody reads from."""
    try:
        kind = path.stat().st_mode
    except OSError:  # nothing is there, or the system says what is wrong when the file is made
        return
    if path.absolute().parent == Path("/dev") or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.ENOTSUP, "this is a pipe or a device, expected the name of a file", str(path))


def _to_disk(path: Path) -> None:
    """A rename survives a power cut only once its folder is on disk, too."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which replaces `target` when the block ends without an error.

    Both are complete at any time: a process that is killed between the two renames leaves them in a hidden folder
    beside `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    new, old = staging / "new", staging / "old"
    new.mkdir()
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
