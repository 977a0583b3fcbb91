"""Limits of a shell or a batch system (`ulimit`) under which Ray's processes end one by one, with stack traces."""

from __future__ import annotations

import os
import resource

from maskhand.machine import MachineError

GIB = 1 << 30
LEAST = (
    (resource.RLIMIT_AS, "-v", 6 * GIB, "address space"),
    (resource.RLIMIT_FSIZE, "-f", GIB, "the size of a file"),
    (resource.RLIMIT_NOFILE, "-n", 256, "open files"),
    (resource.RLIMIT_NPROC, "-u", 512, "processes and threads"),
)
"""Kind, its letter for `ulimit`, what a private Ray session with two workers needs (on a machine of two cores 4.1 GB of
addresses a process), in words."""


def check_limits() -> None:
    """Raise soft limits that are too low for a Ray session as far as the hard ones allow. Raises MachineError where
    that is too little."""
    for kind, letter, least, words in LEAST:
        soft, hard = resource.getrlimit(kind)
        if kind == resource.RLIMIT_NPROC and os.geteuid() == 0:  # does not count for root
            continue
        if soft == resource.RLIM_INFINITY or soft >= least:
            continue
        if hard != resource.RLIM_INFINITY and hard < least:
            shown = f"{hard / GIB:.2g} GiB" if least >= GIB else str(hard)
            needed = f"{least // GIB} GiB" if least >= GIB else str(least)
            raise MachineError(
                f"a limit of {shown} for {words} is set here, and Ray needs {needed}; raise it where the program is "
                f"started (ulimit {letter}, or what the batch system asks for)"
            )
        resource.setrlimit(kind, (hard, hard))
