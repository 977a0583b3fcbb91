"""Signals that end a command: exit code, sentence, what it has open is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time
from maskhand import cli
how = sys.argv[1]

class Lost:
    def __del__(self):
        print("waits", flush=True)
        time.sleep(0.5 if how == "lost" else 0)

class Last:  # as Ray's and torch's modules, it takes a while to be freed
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"nearly gone\\n")
        sleep(1)

def app(args, prog_name):
    try:
        one = Lost()
        del one
        time.sleep(30)
    except KeyboardInterrupt:
        sys.exit(130)  # as typer does
    finally:
        if how == "at the end":
            sys.at_the_end = Last()
        if how == "twice":
            print("cleans up", flush=True)
            sys.stdin.readline()
        print("ended", flush=True)

cli.app = app
cli.main(["doctor"])
"""

SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "ended, as its terminal was closed"}


def _started(how: str, ignored: signal.Signals | None = None) -> subprocess.Popen[str]:
    def handlers() -> None:
        for one in SAID:
            signal.signal(one, signal.SIG_IGN if one == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=handlers,
    )
    assert process.stdout is not None and process.stdout.readline() == "waits\n"
    return process


@pytest.mark.parametrize("number", SAID)
@pytest.mark.parametrize("how", ["simple", "lost"])
def test_a_signal_ends_the_command_with_a_sentence(how: str, number: signal.Signals) -> None:
    """lost: it arrives within a destructor, where exceptions end."""
    process = _started(how)
    process.send_signal(number)
    output, said = process.communicate(timeout=20)
    assert output == "ended\n" and process.returncode == 128 + number
    assert said == f"{SAID[number]}; the same command goes on from the last checkpoint or shard that was finished\n"


@pytest.mark.parametrize("second", SAID)
@pytest.mark.parametrize("first", SAID)
def test_a_further_signal_does_not_interrupt_the_clean_up(first: signal.Signals, second: signal.Signals) -> None:
    process = _started("twice")
    process.send_signal(first)
    assert process.stdout is not None and process.stdout.readline() == "cleans up\n"
    process.send_signal(second)
    output, said = process.communicate("\n", timeout=20)
    assert output == "ended\n" and process.returncode == 128 + first
    assert said.startswith(SAID[first]) and len(said.splitlines()) == 1


def test_a_further_signal_while_python_ends_changes_no_exit_code() -> None:
    process = _started("at the end")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == "ended\n"
    assert process.stdout.readline() == "nearly gone\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT and said.startswith(SAID[signal.SIGINT])


def test_a_terminal_that_is_gone_hides_no_exit_code() -> None:
    process = _started("simple")
    assert process.stderr is not None and process.stdout is not None
    os.close(process.stderr.fileno())
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 128 + signal.SIGHUP
    process.stdout.close()


def test_what_nohup_ignores_stays_ignored() -> None:
    process = _started("simple", ignored=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    process.communicate()
