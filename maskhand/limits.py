"""Limits of a shell or a batch system (`ulimit`) under which Ray's processes end one by one, with stack traces."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from maskhand.machine import MachineError

GIB = 1 << 30
LEAST = (
    (resource.RLIMIT_AS, "-v", 6 * GIB, "address space"),
    (resource.RLIMIT_FSIZE, "-f", GIB, "the size of a file"),
    (resource.RLIMIT_NOFILE, "-n", 256, "open files"),
    (resource.RLIMIT_NPROC, "-u", 384, "processes and threads"),
)
"""Kind, its letter for `ulimit`, what a private Ray session with two workers needs (on a machine of two cores 4.1 GB of
addresses a process, and 270 threads), in words."""


def check_limits() -> None:
    """Raise soft limits that are too low for a Ray session as far as the hard ones allow. Raises MachineError where
    that is too little."""
    for kind, letter, least, words in LEAST:
        soft, hard = resource.getrlimit(kind)
        if kind == resource.RLIMIT_NPROC and os.geteuid() == 0:  # does not count for root
            continue
        used = _running() if kind == resource.RLIMIT_NPROC else 0
        if soft == resource.RLIM_INFINITY or soft >= used + least:
            continue
        if hard != resource.RLIM_INFINITY and hard < used + least:
            shown = f"{hard / GIB:.2g} GiB" if least >= GIB else str(hard)
            needed = f"{least // GIB} GiB" if least >= GIB else str(least)
            others = f" beside this user's {used} others; end some, or" if used else ";"
            raise MachineError(
                f"a limit of {shown} for {words} is set here, and Ray needs {needed}{others} raise it where the "
                f"program is started (ulimit {letter}, or what the batch system asks for)"
            )
        resource.setrlimit(kind, (hard, hard))


def _running() -> int:
    """Processes and threads of this user, which all count; 0 where the system does not tell."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, ValueError):  # the process has just ended
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if int(facts["Uid"].split()[0]) == os.getuid():
                count += int(facts["Threads"])
    return count
