"""`maskhand serve` ends, with a sentence, when one of its two processes does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maskhand.lock import held
from maskhand.pipelines import runtime, serve, server
from maskhand.workspace import Workspace


class Process:
    """Lives for some looks at it, then has ended."""

    def __init__(self, looks: float, code: int) -> None:
        self.looks, self.code = looks, code

    def poll(self) -> int | None:
        self.looks -= 1
        return None if self.looks > 0 else self.code

    @property
    def returncode(self) -> int | None:
        return self.code if self.looks <= 0 else None


@pytest.mark.parametrize(("of_server", "of_worker"), [(3, float("inf")), (float("inf"), 3)])
def test_the_end_of_either_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_server: float, of_worker: float
) -> None:
    @contextmanager
    def running(*_: Any) -> Iterator[server.RunningServer]:
        yield server.RunningServer("http://127.0.0.1:4200/api", Process(of_server, -9))  # type: ignore[arg-type]

    @contextmanager
    def worker(*_: Any) -> Iterator[Process]:
        yield Process(of_worker, 1)

    monkeypatch.setattr(serve, "server", running)
    monkeypatch.setattr(serve, "worker", worker)
    monkeypatch.setattr(serve, "create", lambda _variables: 0)
    monkeypatch.setattr(serve, "_LOOK_S", 0.0)
    monkeypatch.setattr(serve, "_end_by_interrupt", lambda: None)
    told = r"server ended by itself with exit code -9; its log is .*server\.log" if of_server == 3 else "worker ended"
    with pytest.raises(server.ServerError, match=told):
        serve.serve(Workspace(tmp_path, str(tmp_path / "shards")))


def test_a_second_one_of_a_workspace_is_told_who_is_first(tmp_path: Path) -> None:
    """On another port, too: both would be servers of one database."""
    with held(tmp_path, "serve", "the Prefect server"):
        command = [sys.executable, "-m", "maskhand.cli", "serve", "-w", str(tmp_path), "--port", "4399"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: the Prefect server of {tmp_path}: process {os.getpid()} on ")
    assert second.stderr.endswith("is at it; wait for its end, or stop it\n")


@pytest.mark.parametrize("owner", [True, False])
def test_pages_of_prefect_of_another_accounts_installation_are_in_the_workspace(
    owner: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = os.access

    def access(path: Any, mode: int, **words: Any) -> bool:
        return owner if str(path).endswith("prefect/server") else may(path, mode, **words)

    monkeypatch.setattr(os, "access", access)
    pages = runtime.settings(Workspace(tmp_path, str(tmp_path / "shards"))).get("PREFECT_UI_STATIC_DIRECTORY")
    assert pages == (None if owner else str(tmp_path / "prefect" / "pages"))


PROGRAM = """
import time
print("works")
try:
    time.sleep(60)
finally:
    print("Traceback (most recent call last):")
"""


def test_what_the_worker_says_after_ctrl_c_is_only_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "prefect_command", lambda *_: [sys.executable, "-c", PROGRAM])
    log = tmp_path / "worker.log"
    with server.worker(os.environ, log) as process:
        deadline_s = time.monotonic() + 20
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    assert process.returncode is not None
    assert capsys.readouterr().out == "works\n"
    assert log.read_text().startswith("works\nTraceback (most recent call last):\n")


def test_an_end_by_ctrl_c_that_is_wanted_is_a_success() -> None:
    """Also when it is pressed once more, while worker and server end."""
    program = """
import signal, sys
from maskhand import signals
with signals.by_exceptions():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGINT)
        sys.exit(0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
