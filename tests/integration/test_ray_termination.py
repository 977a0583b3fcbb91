"""A signal while a program waits for Ray: it ends by an exception, so that what it has open is ended too."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
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


TRAINING = """
import ray, sys, time
from ray.train import ScalingConfig
from maskhand.cluster.session import ray_session
from maskhand.cluster.train import _Trainer
from maskhand.signals import by_exceptions

def work(config):
    print("trains", file=open(config["seen"], "w"), flush=True)
    time.sleep(300)

with by_exceptions(), ray_session():
    scaling = ScalingConfig(num_workers=1)
    _Trainer(work, train_loop_config={"seen": sys.argv[1]}, scaling_config=scaling).fit()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_training_that_is_told_to_end_says_so(number: signal.Signals, tmp_path: Path) -> None:
    script, seen = tmp_path / "program.py", tmp_path / "seen"
    script.write_text(TRAINING)
    process = subprocess.Popen(
        [sys.executable, str(script), str(seen)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # the tests may run where it is ignored
    )
    deadline_s = time.monotonic() + 180
    while not seen.exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1].endswith(
        "; the same command goes on from the last checkpoint or shard that was finished"
    )
