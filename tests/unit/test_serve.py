"""`maskhand serve` ends, with a sentence, when one of its two processes does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from maskhand.pipelines import server
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
