"""The machine as people have it: behind a proxy, without a home, with a folder for temporary files that is too deep,
with variables out of files that keep quotes.

Libraries read these from the environment, each in its own way. `settle` mends what is missing, before one is imported;
what comes too late there is a sentence of `ray_folder`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import re
import shutil
import sys
import tempfile
from pathlib import Path

from maskhand.errors import MaskhandError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "127.0.0.2", "::1")
"""Never asked through a proxy. 127.0.0.1: a private Ray session; 127.0.0.2: the head node of `infra/local_cluster`."""
_NO_PROXY = ("NO_PROXY", "no_proxy")

_FOLDERS = "MASKHAND_"
_SETTINGS = (_FOLDERS, "AWS_", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "RAY_ADDRESS")
"""Beginnings of the names of variables that hold a place, an address, or a key without spaces."""

_LONGEST_SOCKET = 107
"""Bytes of a Unix socket's path (Linux, sockaddr_un)."""
_SOCKET_BELOW_RAY = len("/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store.9")
SHORT_FOLDER = Path("/tmp")
LEAST_FREE_MIB = 64
"""For logs and sockets; with less, processes end one by one and nobody says why."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt` (glibc, malloc.h)."""


class MachineError(MaskhandError, OSError):
    """A machine on which something cannot start; the message names the variable or the folder."""


def settle() -> None:
    """Make the environment of this process, and of everything it starts, one that libraries can live with."""
    reuse_memory()
    os.environ |= proxy_exceptions()
    name, home = _passwd_entry()
    # Containers run under users whom nobody has entered anywhere, and batch systems clear the environment.
    if not os.environ.get("HOME"):
        os.environ["HOME"] = home or str(_own_folder("home"))
    if not any(os.environ.get(variable) for variable in ("LOGNAME", "USER")) and name is None:
        os.environ["USER"] = os.environ["LOGNAME"] = f"user{os.getuid()}"
    for name, value in plain_settings().items():
        if value:
            os.environ[name] = value
        else:
            del os.environ[name]  # a library would take the empty text for an address or a profile


def check_python() -> None:
    """Raises MachineError for a Python without docstrings: Ray reads its own when it is imported."""
    if sys.flags.optimize > 1:
        raise MachineError(
            "Python was started without docstrings, which Ray needs; unset PYTHONOPTIMIZE, and start it without -OO"
        )


def plain_settings() -> dict[str, str]:
    """Settings whose value is another one than was meant: without the quotes, spaces and line ends that `docker run
    --env-file`, systemd and files from Windows leave there, and without a `~` that no shell has replaced."""
    plain = {}
    for name, given in os.environ.items():
        if name.startswith(_SETTINGS):
            value = given.strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1].strip()
            if name.startswith(_FOLDERS):
                value = os.pathsep.join(map(os.path.expanduser, value.split(os.pathsep)))
            if name == "RAY_ADDRESS" and value == "local":
                value = ""  # Ray's word for a session of one's own, which is what there is without an address
            if value != given or not value:
                plain[name] = value
    return plain


def reuse_memory() -> None:
    """Let this process keep the memory that its tensors release, for the next ones.

    By default glibc returns large blocks to the system at once, and each new one costs a page fault for every 4 KiB: a
    seventh of the CPU time of the quickstart's training step, half of its encoder's forward pass
    (`benchmarks/memory.py`). The peak is the same, but the process holds on to it. Nothing changes with another C
    library.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20)):
            mallopt(parameter, value)


def proxy_exceptions() -> dict[str, str]:
    """Both spellings of NO_PROXY with what either of them has, and this machine itself: some libraries read the one,
    some the other, and urllib looks at capitals only where there are no small letters."""
    hosts = [host for name in _NO_PROXY for host in re.split(r"[,\s]+", os.environ.get(name, "")) if host]
    return dict.fromkeys(_NO_PROXY, ",".join(dict.fromkeys([*hosts, *LOCAL_HOSTS])))


def ray_folder() -> str:
    """The folder for the files of a Ray session on this machine: `ray` in $RAY_TMPDIR, $TMPDIR or /tmp, as Ray's own.

    It puts sockets there, whose paths must be short. Where $TMPDIR will not do, it is one in /tmp. Raises MachineError
    when that will not do either, and when RAY_TMPDIR, which is meant for Ray alone, will not.
    """
    given = os.environ.get("RAY_TMPDIR")
    default = Path(given or os.environ.get("TMPDIR") or SHORT_FOLDER) / "ray"
    fault = _fault(default)
    if fault is None:
        return str(default)
    if not given:
        for folder in (SHORT_FOLDER / "ray", SHORT_FOLDER / f"ray-{os.getuid()}"):
            if _fault(folder) is None:
                return str(folder)
    variable = "RAY_TMPDIR" if given else "TMPDIR" if os.environ.get("TMPDIR") else "the default"
    raise MachineError(
        f"{default}: Ray cannot keep its files here ({fault}; from {variable}); set RAY_TMPDIR to a short folder that "
        "can be written, with a gigabyte free"
    )


def has_home(name: str) -> bool:
    """Can this folder be made, or written, in the user's home?"""
    folder = Path.home() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _fault(folder: Path) -> str | None:
    too_long = len(os.fsencode(folder)) + _SOCKET_BELOW_RAY - _LONGEST_SOCKET
    if too_long > 0:
        return f"{too_long} bytes too long for the sockets in it"
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is no folder"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} cannot be written"
    free_mib = shutil.disk_usage(nearest).free / 2**20
    return None if free_mib >= LEAST_FREE_MIB else f"only {free_mib:.0f} MiB are free there"


def _passwd_entry() -> tuple[str | None, str | None]:
    """Name and home of this user; None each where nobody has entered it, or no such folder is there."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return None, None
    return entry.pw_name, entry.pw_dir if Path(entry.pw_dir).is_dir() else None


def _own_folder(kind: str) -> Path:
    """A folder of this user alone for what would otherwise lie in its home."""
    folder = Path(tempfile.gettempdir()) / f"maskhand-{kind}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix=f"maskhand-{kind}-"))
