"""Sentences for errors of the system and of libraries, which speak to programmers."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskhand.disk import is_full

_ELSEWHERE = "choose another folder (-w, or MASKHAND_WORKSPACE), or mend this one"
_SYSTEM = {
    errno.ENOSPC: ("the disk is full", "free some space; the same command then goes on"),
    errno.EDQUOT: ("the disk quota is used up", "free some space; the same command then goes on"),
    errno.EROFS: ("it is on a disk that can only be read", _ELSEWHERE),
    errno.EACCES: ("permission denied", _ELSEWHERE),
    errno.EPERM: ("permission denied", _ELSEWHERE),
    errno.EMFILE: ("too many open files", "raise the limit: ulimit -n 65536"),
    errno.ENFILE: ("too many open files on this machine", "end other programs"),
    errno.ENAMETOOLONG: ("the path is too long", _ELSEWHERE),
    errno.ELOOP: ("a link leads back to itself", _ELSEWHERE),
    errno.ENOMEM: ("out of memory", "end other programs, or take a smaller batch"),
    errno.EIO: ("the disk reports an error", "look into the system's log"),
    errno.ECONNREFUSED: ("nobody answers at that address", "is the server running, and the address right?"),
}
"""Number of an OSError -> what is the matter, what to do."""

_SAID: tuple[tuple[str, int], ...] = (
    (r"database or disk is full|no space left on device", errno.ENOSPC),
    (r"attempt to write a readonly database|read-only file system", errno.EROFS),
    (r"too many open files", errno.EMFILE),
    (r"connection refused", errno.ECONNREFUSED),
)
"""The same, said by libraries in their own words."""

_DATABASES = ("sqlalchemy", "sqlite3", "psycopg2", "asyncpg", "aiosqlite")


def explained(error: BaseException, folders: Sequence[Path] = ()) -> str | None:
    """A sentence for an error, or one that it came from, that people meet and can mend; None for any other.

    folders: those that may be on a full disk, where the error does not say which one is.
    """
    for one in _causes(error):
        number = one.errno if isinstance(one, OSError) else None
        if isinstance(one, MemoryError):
            number = errno.ENOMEM
        if number not in _SYSTEM:
            number = next((code for said, code in _SAID if re.search(said, str(one), re.IGNORECASE)), None)
        if number is not None:
            what, advice = _SYSTEM[number]
            place = f"{one.filename}: " if isinstance(one, OSError) and one.filename else ""
            if number == errno.ENOSPC and not place:
                place = "".join(f"{folder}: " for folder in folders if is_full(folder))
            if number == errno.ECONNREFUSED and not place:
                place = next(filter(None, map(_address, _causes(error))), "")
            return f"{place}{what}; {advice}"
    for one in filter(lambda one: _package(one) in _DATABASES, _causes(error)):
        reason = " ".join(str(getattr(one, "orig", None) or one).split())[:200]
        return f"the database of runs cannot be used ({reason}); is another program at it, or is its address wrong?"
    if isinstance(error, RuntimeError) and "determine home directory" in str(error):  # pathlib's words
        return "a path begins with ~ and the name of no user of this machine; write its folder in full"
    if isinstance(error, OSError) and error.errno and error.strerror:  # else its text begins with [Errno ...]
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    if isinstance(error, Warning):
        return (
            f"a warning of another package counts as an error here ({' '.join(str(error).split())[:200]}); unset "
            "PYTHONWARNINGS, and start Python without -W error"
        )
    if _package(error) == "pydantic_core" and str(getattr(error, "title", "")).endswith("Settings"):
        return f"a setting of Prefect is wrong ({_first_mistake(error)}); correct the PREFECT_ variable or the profile"
    if _package(error) == "cv2":
        return f"OpenCV could not work on an image ({' '.join(str(error).split())[:200]}); is the file a whole picture?"
    return None


def _first_mistake(error: Any) -> str:
    """The first that pydantic found in settings."""
    mistake = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, mistake['loc']))}={mistake['input']!r}: {mistake['msg'].lower()}"


def _address(error: BaseException) -> str:
    """Where the request of an error of httpx or requests went; empty for others."""
    try:
        parts = urlsplit(str(error.request.url))  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx's way to say that there is none
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}: " if parts.netloc else ""


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the nearest first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = getattr(current, "orig", None) or current.__cause__ or current.__context__
