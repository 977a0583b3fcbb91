"""What stands under a local name: a file, nothing, or something that must not pass for either."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO

from maskhand.storage_errors import MissingFileError, NotAFileError

_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def status(path: str | Path) -> os.stat_result | None:
    """What a name leads to; None where it leads nowhere. OSError as the system gives it."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return None
        raise
    except ValueError:  # no file can have such a name
        return None


def size(path: str | Path) -> int | None:
    """Bytes of a file, None where nothing has this name. Raises MissingFileError for a link that leads nowhere, and
    NotAFileError."""
    found = status(path)
    if found is None:
        _check_link(path)
        return None
    _check_regular(path, found)
    return found.st_size


def open_file(path: str | Path, buffering: int = -1) -> IO[bytes]:
    """A file for reading; never waits for somebody to write into a pipe. Raises MissingFileError, NotAFileError."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise
        _check_link(path)
        raise MissingFileError(f"{path}: there is no such file") from error
    except ValueError as error:
        raise MissingFileError(f"{str(path)!r}: no file can have such a name") from error
    try:
        _check_regular(path, os.fstat(number))
    except NotAFileError:
        os.close(number)
        raise
    return os.fdopen(number, "rb", buffering)


def _check_link(path: str | Path) -> None:
    try:
        target = os.readlink(path)
    except (OSError, ValueError):
        return
    raise MissingFileError(f"{path}: a link to {target}, where nothing is; copy the file there or remove the link")


def _check_regular(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise NotAFileError(f"{path}: this is {kind}, expected a file")
