"""Limits of the shell: raised where that is allowed, told where it is not; shared memory that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from maskhand.cluster import session

PROGRAM = """
import os, resource, sys, threading, time
kind, soft, hard = getattr(resource, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.geteuid = lambda: 1000
from maskhand.limits import check_limits
threads = [threading.Thread(target=time.sleep, args=[2], daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
resource.setrlimit(kind, (soft, hard))
try:
    check_limits()
except OSError as error:
    print(error)
else:
    print(resource.getrlimit(kind))
"""


@pytest.mark.parametrize(
    ("kind", "soft", "hard", "said"),
    [
        ("RLIMIT_NOFILE", 64, 300, "(300, 300)"),
        ("RLIMIT_NOFILE", 256, 300, "(256, 300)"),
        ("RLIMIT_NOFILE", 64, 64, "a limit of 64 for open files is set here, and Ray needs 256; raise it where the "),
        ("RLIMIT_AS", 4 << 30, 4 << 30, "a limit of 4 GiB for address space is set here, and Ray needs 6 GiB; raise "),
        ("RLIMIT_AS", 4 << 30, -1, "(-1, -1)"),
        ("RLIMIT_FSIZE", 1 << 28, 1 << 28, "a limit of 0.25 GiB for the size of a file is set here"),
        (
            "RLIMIT_NPROC",
            100,
            100,
            "a limit of 100 for processes and threads is set here, and Ray needs 384 beside this ",
        ),
        (
            "RLIMIT_NPROC",
            390,
            390,
            "a limit of 390 for processes and threads is set here, and Ray needs 384 beside this ",
        ),
    ],
)
def test_limits_that_are_too_low_are_raised_or_told(kind: str, soft: int, hard: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, kind, str(soft), str(hard)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(said)


@pytest.mark.parametrize(("place", "chosen"), [("/proc/none", "/tmp/ray"), (None, None)])
def test_shared_memory_that_cannot_be_written_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str | None, chosen: str | None
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(ray, "init", lambda **settings: given.update(settings))
    monkeypatch.setattr(session, "_SHARED_MEMORY", place or str(tmp_path))
    session._start_local("/tmp/ray")
    assert given["_plasma_directory"] == chosen
