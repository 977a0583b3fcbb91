"""What a killed program had started ends with it, and what an ordinary end had to end is left to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import signal, subprocess, sys, time
from maskhand.pipelines.lifeline import end_with_us
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
end_with_us(child.pid, signal.SIGKILL)
print(child.pid, flush=True)
if sys.argv[1] == "killed":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["killed", "ordinary"])
def test_what_a_killed_program_had_started_ends_with_it(end: str, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, end], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = psutil.Process(int(program.stdout.readline()))
        if end == "killed":
            program.send_signal(signal.SIGKILL)
    if end == "killed":
        deadline_s = time.monotonic() + 60
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline_s, "it outlives the program"
            time.sleep(0.05)
    else:
        time.sleep(0.5)
        assert child.is_running(), "whoever started it ends it"
        child.kill()
