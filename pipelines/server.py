"""The Prefect server and worker of this machine, as processes.

Prefect is controlled through its command line, in subprocesses with the environment of `maskhand.pipelines.runtime`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

import psutil

from maskhand.errors import MaskhandError
from maskhand.pipelines.database import check_database
from maskhand.pipelines.lifeline import end_with_us
from maskhand.pipelines.runtime import HOST, PORT, prefect_home, settings
from maskhand.pipelines.server_log import reason_in
from maskhand.workspace import Workspace

POOL = "maskhand"
START_S = 300.0
"""Timeout of the server's start, which takes a minute or two on a busy machine."""
STOP_S = 30.0
_COPIED_S = 0.5
"""Timeout of the last lines of a worker that has ended."""


@dataclass(frozen=True)
class RunningServer:
    """A Prefect server that this process has started."""

    url: str
    """URL of its API."""
    process: subprocess.Popen[bytes]


class ServerError(MaskhandError, RuntimeError):
    """The Prefect server or worker failed; the message says what to do."""


def environment(workspace: Workspace, api_url: str | None = None) -> dict[str, str]:
    """The environment of a Prefect process: ours, the user's variables, and the server at `api_url` (None: its own).

    Runs without a workspace parameter use this workspace.
    """
    variables = {**settings(workspace), **os.environ, "MASKHAND_WORKSPACE": str(workspace.root)}
    variables.pop("PREFECT_API_URL", None)
    return variables if api_url is None else variables | {"PREFECT_API_URL": api_url}


@contextmanager
def server(workspace: Workspace, port: int, log: Path) -> Iterator[RunningServer]:
    """A context with a Prefect server on 127.0.0.1 whose database is in the workspace. Raises ServerError, and
    DatabaseError."""
    url = f"http://{HOST}:{port}/api"
    if answers(url):
        raise ServerError(f"port {port} is taken by another Prefect server; choose another one with --port")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: reuses the port of an old one
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"port {port} cannot be used ({(error.strerror or '').lower()}); choose another one with --port"
            ) from None
    # The web pages fetch their data from this address; by default from port 4200.
    own = environment(workspace) | {"PREFECT_LOGGING_SERVER_LEVEL": "WARNING", "PREFECT_SERVER_UI_API_URL": url}
    check_database(prefect_home(workspace))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        said_before = output.tell()
        process = _start(prefect_command("server", "start", "--host", HOST, "--port", str(port)), own, output)
        try:
            deadline_s = time.monotonic() + START_S
            while not answers(url):
                if process.poll() is not None:
                    raise ServerError(
                        f"the Prefect server did not start ({reason_in(log, said_before)}); its log is {log}"
                    )
                if time.monotonic() > deadline_s:
                    raise ServerError(f"the Prefect server does not answer after {START_S:g} s; its log is {log}")
                time.sleep(0.3)
            yield RunningServer(url, process)
        finally:
            _stop(process, signal.SIGTERM)


@contextmanager
def worker(variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of the pool, whose output is shown, and kept in `log`. At the end its runs are terminated first,
    and write their last state; what Prefect says meanwhile, in pages, is only kept.

    Prefect's worker would kill them while they do, and they would stay `Running` for ever on the server.
    """
    command = prefect_command("worker", "start", "--pool", POOL, "--type", "process")
    process = _start(command, {**variables, "PYTHONUNBUFFERED": "1"}, subprocess.PIPE)
    stopping = threading.Event()
    log.parent.mkdir(parents=True, exist_ok=True)
    copying = threading.Thread(target=_copy, args=(process.stdout, log, stopping), daemon=True)
    copying.start()
    try:
        yield process
    finally:
        stopping.set()
        _end_runs(process)
        _stop(process, signal.SIGINT)
        copying.join(_COPIED_S)


def _copy(lines: IO[bytes], log: Path, stopping: threading.Event) -> None:
    with log.open("ab") as kept:
        for line in lines:
            kept.write(line)
            kept.flush()
            if not stopping.is_set():
                with suppress(OSError):  # the terminal is gone
                    print(line.decode(errors="replace"), end="", flush=True)


def _end_runs(worker: subprocess.Popen[bytes]) -> None:
    try:
        runs = psutil.Process(worker.pid).children()
    except psutil.NoSuchProcess:
        return
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.terminate()
    _, left = psutil.wait_procs(runs, STOP_S)
    for run in left:
        with suppress(psutil.NoSuchProcess):
            run.kill()


def running_server() -> str:
    """URL of the running server; ServerError if there is none."""
    url = (os.environ.get("PREFECT_API_URL") or f"http://{HOST}:{PORT}/api").rstrip("/")
    if not answers(url):
        raise ServerError(
            f"no Prefect server answers at {url}; start `maskhand serve` in another terminal, or set PREFECT_API_URL "
            "to the server's http://HOST:PORT/api"
        )
    return url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    """Whether a Prefect server's API at `url` reports that it is healthy; its pages answer to every path, too."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return answer.read(64).strip() == b"true"
    except (OSError, ValueError, HTTPException):  # the last two: no address, another program's answer
        return False


def prefect_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *words]


def _start(command: list[str], variables: Mapping[str, str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    # In its own session: Ctrl-C reaches only us, and we stop the worker before its server.
    process = subprocess.Popen(
        command,
        env=dict(variables),
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    end_with_us(process.pid, signal.SIGINT)
    return process


def _stop(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
