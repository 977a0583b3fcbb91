"""One process at a time in a folder, and a sentence that says which one it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from maskhand.errors import MaskhandError
from maskhand.replacement import TEMPORARY
from maskhand.storage import StorageError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that know no locks."""


class LockedError(MaskhandError, RuntimeError):
    """Somebody else is at it; the message says who, and since when."""


@contextlib.contextmanager
def held(folder: Path, name: str, what: str) -> Iterator[None]:
    """A context that one process at a time is in, on all machines that see this folder.

    folder: where the lock's file stands meanwhile, made if it is missing; what: that which is being made, for the
    sentence. The lock of a process that was killed is free. Raises LockedError, StorageError.
    """
    path = folder / f".{name}.lock{TEMPORARY}"
    try:
        number = _acquired(path, what)
    except OSError as error:
        raise StorageError(f"{folder}: nothing can be written here ({(error.strerror or '').lower()})") from error
    try:
        yield
    finally:
        if number is not None:
            path.unlink(missing_ok=True)
            os.close(number)


def _acquired(path: Path, what: str) -> int | None:
    """The open file of the lock; None where the file system has no locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(number)
            os.close(number)
            raise LockedError(f"{what}: {holder} is at it; wait for its end, or stop it") from None
        except OSError as error:
            os.close(number)
            if error.errno not in _NO_LOCKS:
                raise
            return None
        if _is_at(path, number):
            os.truncate(number, 0)
            os.write(number, json.dumps(this_process()).encode())
            return number
        os.close(number)


def _is_at(path: Path, number: int) -> bool:
    """Whether the file is still the one of this name: its holder removes it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except FileNotFoundError:
        return False


def this_process() -> dict[str, object]:
    """What others are told of the process that holds a lock."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def described(facts: object) -> str:
    """Words for what `this_process` said; they may be of a file of anybody's."""
    try:
        return "process {process} on {host} (since {since}: {command})".format_map(facts)  # type: ignore[arg-type]
    except (TypeError, KeyError):
        return "another process"


def _holder(number: int) -> str:
    try:
        return described(json.loads(os.pread(number, 4096, 0)))
    except ValueError:  # it has not written yet
        return "another process"
