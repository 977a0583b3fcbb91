"""Prefect's embedded server: what keeps it from starting, or ends it, is a sentence in good time."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from maskhand.pipelines import embedded
from maskhand.pipelines.embedded import EmbeddedServerError, embedded_server
from maskhand.pipelines.server import answers
from maskhand.shards.layout import ShardError
from support.warned import warnings_of

FAILS = (
    "print('a page\\nsqlite3.DatabaseError: file is not a database\\nApplication startup failed'); raise SystemExit(3)"
)
STANDS_STILL = "import time; time.sleep(60)"
WORKS_AND_ANSWERS = """
import sys, time
while time.process_time() < 2.5: pass
from http.server import BaseHTTPRequestHandler, HTTPServer
class Well(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404); self.end_headers(); self.wfile.write(b"true")
HTTPServer(("127.0.0.1", int(sys.argv[1])), Well).serve_forever()
"""


class Prefects:
    """In place of Prefect's own object for the process, of which there is one for all tests."""

    server_process: subprocess.Popen[bytes] | None = None
    port = 0

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @staticmethod
    def find_available_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def stop(self) -> None:
        if self.server_process is not None:
            self.server_process.kill()
            self.server_process.wait()


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run; the program is set by the test."""
    monkeypatch.setattr(embedded, "PREFECT_API_URL", SimpleNamespace(value=lambda: None))
    monkeypatch.setattr(embedded, "PREFECT_HOME", SimpleNamespace(value=lambda: tmp_path))
    monkeypatch.setattr(embedded, "SubprocessASGIServer", Prefects)
    monkeypatch.setattr(embedded, "IDLE_S", 2.0)
    return []


def program(source: str, starts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def command(port: int) -> list[str]:
        starts.append([sys.executable, "-S", "-c", source, str(port)])
        return starts[-1]

    monkeypatch.setattr(embedded, "_command", command)


@pytest.mark.parametrize(
    ("source", "said", "times"),
    [
        (
            FAILS,
            r"ended while it started \(exit code 3: file is not a database\); its log is",
            2,
        ),
        (STANDS_STILL, r"does not answer after \d+ s; end other programs, .*prefect\.db\), .*embedded\.log", 1),
    ],
    ids=["fails", "stands still"],
)
def test_a_server_that_cannot_start_is_one_sentence(
    source: str, said: str, times: int, starts: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(source, starts, monkeypatch)
    began_s = time.monotonic()
    with pytest.raises(EmbeddedServerError, match=said), embedded_server():
        pass
    assert time.monotonic() - began_s < 60 and len(starts) == times


def test_a_slow_server_is_waited_for_as_long_as_it_works(starts: list[list[str]], monkeypatch) -> None:
    program(WORKS_AND_ANSWERS, starts, monkeypatch)
    with embedded_server():
        assert len(starts) == 1


def test_a_server_that_is_named_and_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://me:secret@127.0.0.1:{Prefects.find_available_port()}/api"
    monkeypatch.setattr(embedded, "PREFECT_API_URL", SimpleNamespace(value=lambda: url))
    said = "no Prefect server answers at PREFECT_API_URL="
    with pytest.raises(EmbeddedServerError, match=said) as told, embedded_server():
        pass
    assert "secret" not in str(told.value)


def test_a_lost_server_is_started_again_on_its_port(starts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    program(WORKS_AND_ANSWERS, starts, monkeypatch)
    said = warnings_of(embedded.__name__, monkeypatch)
    with embedded_server():
        (process,) = (p for p in psutil.Process().children() if p.cmdline() == starts[0])
        process.kill()
        deadline_s = time.monotonic() + 60
        while not (len(starts) == 2 and answers(f"http://127.0.0.1:{starts[0][-1]}/api")):
            assert time.monotonic() < deadline_s, "it was not started again"
            time.sleep(0.1)
    assert starts[0] == starts[1]
    assert said == ["the embedded Prefect server has ended, killed or out of memory; it is started again"]


def test_a_server_that_is_lost_for_good_is_told_and_other_errors_stay_themselves(
    starts: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(WORKS_AND_ANSWERS, starts, monkeypatch)
    monkeypatch.setattr(embedded, "_keep", lambda *_: None)
    refused, of_ours = ConnectionRefusedError("All connection attempts failed"), ShardError("a shard is cut")
    for error, lost, told in (
        (refused, True, r"embedded Prefect server has ended, .*the same command goes on"),
        (refused, False, "All connection attempts failed"),
        (of_ours, True, "a shard is cut"),
    ):
        monkeypatch.setattr(embedded, "_is_lost", lambda server, lost=lost: lost)
        with pytest.raises(Exception, match=told), embedded_server():
            raise error
