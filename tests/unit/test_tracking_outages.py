"""A tracking store that is lost in the middle, or that nobody here may use: a sentence in bounded time."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from maskhand.promotion import Score
from maskhand.tracking import RunReporter, Tracker, TrackingServerError, registry, reporter, server_version
from maskhand.tracking import runs as tracked_runs
from support.training_fakes import small_recipe

Use = Callable[[Tracker], Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Makes servers that answered once, and do not in a way of the caller's choice."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    for module in (tracked_runs, registry):
        monkeypatch.setattr(module, "server_version", lambda *_: "3.0.0")
    running: list[ThreadingHTTPServer] = []
    gone = threading.Event()

    def start(how: str) -> str:
        class Server(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if how == "silent":
                    gone.wait(20)
                self.send_response(200 if how == "other" else int(how) if how.isdecimal() else 200)
                self.end_headers()
                self.wfile.write(b"<html>a page</html>")

            do_POST = do_PATCH = do_PUT = do_GET

            def log_message(self, *_: object) -> None: ...

        http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
        if how == "gone":
            http.server_close()
        else:
            threading.Thread(target=http.serve_forever, daemon=True).start()
            running.append(http)
        return f"http://someone:hidden@127.0.0.1:{http.server_port}"

    yield start
    gone.set()
    for http in running:
        http.shutdown()
        http.server_close()


USES: dict[str, Use] = {
    "start": lambda tracker: tracker.start_run("transformer", small_recipe(), {}),
    "resume": lambda tracker: tracker.resume("run"),
    "tag": lambda tracker: tracker.tag("run", {"a": "b"}),
    "file": lambda tracker: tracker.log_file("run", __file__),
    "end": lambda tracker: tracker.end_run("run"),
    "register": lambda tracker: tracker.register_model("bundle", "run", Score(13.0, 20.0, "data")),
    "resolve": lambda tracker: tracker.resolve("models:/maskhand@champion"),
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_every_request_to_a_server_that_was_lost_ends_with_a_sentence(server: Any, use: Use) -> None:
    with pytest.raises(
        TrackingServerError, match=r"does not answer any more \(nothing listens there\); start"
    ) as error:
        use(Tracker(server("gone")))
    assert error.value.retryable and "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("silent", "it is silent"),
        ("503", "HTTP 503"),
        ("404", "HTTP 404"),
        ("other", "another program answers"),
    ],
)
def test_the_reason_is_told(server: Any, how: str, words: str) -> None:
    began_s = time.monotonic()
    with pytest.raises(TrackingServerError, match=re.escape(f"does not answer any more ({words})")):
        Tracker(server(how)).tag("run", {"a": "b"})
    assert time.monotonic() - began_s < 15


def test_requests_are_given_up_after_minutes_and_the_users_own_limits_count() -> None:
    """MLflow's defaults are four minutes of a server that is gone, twenty of one that is silent."""
    program = """
from maskhand.tracking.store import import_mlflow
import_mlflow("http://127.0.0.1:9")
from mlflow import environment_variables as limits
retries, timeout_s = limits.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), limits.MLFLOW_HTTP_REQUEST_TIMEOUT.get()
print(retries, sum(2**n for n in range(2, retries + 1)) + (retries + 1) * timeout_s)
"""
    names = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
    plain = {name: value for name, value in os.environ.items() if name not in names}

    def limits(**own: str) -> list[float]:
        run = subprocess.run(
            [sys.executable, "-c", program], env=plain | own, capture_output=True, text=True, check=True
        )
        return [float(word) for word in run.stdout.split()]

    assert limits()[1] < 360
    assert limits(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")[0] == 1


def test_a_database_that_fails_later_is_told(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    run_id = tracker.start_run("tokenizer", small_recipe(), {})
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("ALTER TABLE runs RENAME TO gone")
    database.close()
    with pytest.raises(TrackingServerError, match=r"database of runs cannot be used \(no such table: runs"):
        tracker.end_run(run_id)


def test_curves_come_again_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "AGAIN_S", 0.2)
    reached: list[int] = []
    tried: list[int] = []

    class Store:
        def __init__(self, _uri: str) -> None: ...

        def log_metrics(self, _run: str, _metrics: object, step: int) -> None:
            tried.append(step)
            if step < 3:
                raise TrackingServerError("it is away")
            reached.append(step)

    monkeypatch.setattr(reporter, "Runs", Store)
    report = RunReporter("http://127.0.0.1:9", "run")
    for step, pause_s in ((1, 0.0), (2, 0.4), (3, 0.0), (4, 0.0)):
        report(step, {"train/loss": 1.0})
        time.sleep(pause_s)
    told = report.close()
    assert reached == [3, 4] and tried == [1, 3, 4], "no attempt in the pause"
    assert told is not None and "not all points of its curves reached" in told and "it is away" in told


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", r"no credentials for Databricks are found here .* set DATABRICKS_HOST"),
        ("https://127.0.0.1:9", r"nothing answers at https://127.0.0.1:9 \(connection refused\); correct DATABRICKS_H"),
    ],
)
def test_databricks_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, words: str) -> None:
    from maskhand.tracking import databricks

    monkeypatch.setattr(databricks, "_WAIT_S", 1)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("DATABRICKS_")]:
        monkeypatch.delenv(name)
    if host:
        monkeypatch.setenv("DATABRICKS_HOST", host)
        monkeypatch.setenv("DATABRICKS_TOKEN", "x")
    began_s = time.monotonic()
    with pytest.raises(TrackingServerError, match=words):
        server_version("databricks")
    assert time.monotonic() - began_s < 15
