"""`maskhand serve` ends, with a sentence, when one of its two processes does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maskhand.lock import held
from maskhand.pipelines import runtime, server
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

    monkeypatch.setattr(server, "server", running)
    monkeypatch.setattr(server, "worker", worker)
    monkeypatch.setattr(server, "_deploy", lambda _variables: 0)
    monkeypatch.setattr(server, "_LOOK_S", 0.0)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    told = r"server ended by itself with exit code -9; its log is .*server\.log" if of_server == 3 else "worker ended"
    with pytest.raises(server.ServerError, match=told):
        server.serve(Workspace(tmp_path, str(tmp_path / "shards")))


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
