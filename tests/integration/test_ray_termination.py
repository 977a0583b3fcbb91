"""A signal, or the end of Ray itself, while a program waits for Ray: it ends by an exception, so that what it has open
is ended too."""

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
    if sys.argv[1] == "cancelled":  # a second one does not interrupt what the first has begun
        signal.raise_signal(signal.SIGTERM)
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
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
    assert output.splitlines() == [f"{error} ended the block, Ray is False", str(handler == "none")]
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


LOSSES = """
import logging, psutil, ray, threading, time
from maskhand.cluster.ending import LostSessionError
from maskhand.cluster.session import ray_session

@ray.remote
def wait(duration_s):
    time.sleep(duration_s)
    return "worked"

def kill(part):
    next(one for one in psutil.Process().children(recursive=True) if one.cmdline()[:1][0].endswith(part)).kill()

for part in ("raylet", "gcs_server"):
    try:
        with ray_session(), ray_session():
            waiting = wait.remote(300)
            threading.Timer(2, kill, [part]).start()
            begin_s = time.monotonic()
            ray.get(waiting)
    except LostSessionError as error:
        print(error, flush=True)
        print(time.monotonic() - begin_s < 45, ray.is_initialized(), flush=True)
with ray_session():
    print(ray.get(wait.remote(0)))
"""


def test_the_loss_of_a_part_of_ray_is_told_before_ray_ends_the_program(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(LOSSES)
    run = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=400, check=True)
    end = "of this command's Ray session has ended, killed or out of memory; the same command goes on from the last "
    of_raylet, raylet_in_time, of_gcs, gcs_in_time, after = run.stdout.splitlines()
    assert of_raylet.startswith(f"the raylet {end}") and of_gcs.startswith(f"the GCS {end}")
    assert raylet_in_time == gcs_in_time == "True False" and after == "worked"
