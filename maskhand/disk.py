"""Room and permission to write on the disks of local folders."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from maskhand.errors import MaskhandError
from maskhand.storage_errors import FullDiskError, StorageError, is_remote

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEAST_BYTES = 1 << 20
"""With less free space than this a disk counts as full: what is left may be reserved for root, or in pieces."""


def check_writable(folder: str | Path, room_mib: float = 0.0) -> None:
    """Raises StorageError if a local folder cannot be created or written to; nothing is created, so that a later error
    leaves no folder behind.

    room_mib: approximate size of what will be written. An `s3://` prefix is not checked; its first object shows it.
    """
    if is_remote(folder):
        return
    if re.match("[A-Za-z][A-Za-z0-9+]+:/", str(folder)):  # also of s3://, where a path has made one slash of two
        raise StorageError(f"{folder}: this is an address, expected a folder of this machine")
    nearest = Path(folder).absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(bytes(_LEAST_BYTES))  # on a full disk an empty file can still be made
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        advice = "free some space, or choose another folder" if error.errno in _FULL else "choose another folder"
        raise StorageError(f"{folder}: nothing can be written here ({reason}); {advice}") from error
    free_mib = shutil.disk_usage(nearest).free / 2**20
    if free_mib < room_mib:
        raise StorageError(
            f"{folder}: its disk has {free_mib:.0f} MiB left, and about {room_mib:.0f} MiB are needed; free some "
            "space, or choose another folder"
        )


def is_full(folder: str | Path) -> bool:
    """Whether the disk of a local folder is full."""
    try:
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    except OSError:
        return False


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Raises FullDiskError in place of a library's own error when it could not write to `folder` because the disk is
    full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, MaskhandError) or not is_full(folder):
            raise
        raise FullDiskError(f"{folder}: the disk is full; free some space; the same command then goes on") from error
