"""SIGTERM while a program waits for Ray: it ends by an exception, so that what it has open is ended too."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import signal, sys, time
import ray
from maskhand.cluster.session import ray_session

class Cancelled(BaseException): pass

def cancel(number, frame): raise Cancelled(number)

if sys.argv[1] == "cancelled":
    signal.signal(signal.SIGTERM, cancel)
try:
    with ray_session(), ray_session():
        @ray.remote
        def long(): time.sleep(300)
        waiting = long.remote()
        print("waits", flush=True)
        ray.get(waiting)
except BaseException as error:
    print(type(error).__name__, "ended the block, Ray is", ray.is_initialized(), flush=True)
    print(signal.getsignal(signal.SIGTERM) in (cancel, signal.SIG_DFL), flush=True)
    raise
"""


@pytest.mark.parametrize(("handler", "error"), [("cancelled", "Cancelled"), ("none", "SystemExit")])
def test_a_terminated_program_ends_by_an_exception(handler: str, error: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(script), handler], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert output.splitlines() == [f"{error} ended the block, Ray is False", "True"]
    assert process.returncode == (143 if error == "SystemExit" else 1)
