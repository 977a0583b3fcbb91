"""The Prefect server and worker of this machine, and short names for its deployments.

Prefect is controlled through its command line, in subprocesses with the environment of `maskhand.pipelines.runtime`.
"""

from __future__ import annotations

import difflib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

import psutil

from maskhand.errors import MaskhandError, without_passwords
from maskhand.pipelines.database import check_database
from maskhand.pipelines.lifeline import end_with_us
from maskhand.pipelines.runtime import HOST, PORT, prefect_home, settings
from maskhand.pipelines.server_log import reason_in
from maskhand.workspace import Workspace

POOL = "maskhand"
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
_POOL_EXISTS = f"Work pool named '{POOL}' already exists"
START_S = 300.0
"""Timeout of the server's start, which takes a minute or two on a busy machine."""
STOP_S = 30.0
_LOOK_S = 0.5
"""Interval between checks of whether server and worker are alive."""


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


def run_deployment(workspace: Workspace, name: str, parameters: Sequence[str], watch: bool) -> int:
    """Run `prefect deployment run NAME/NAME`, for example of `train-maskhand`; returns its exit code.

    Raises ServerError for a parameter without a value and for a deployment that is not on the server.
    """
    if wrong := [parameter for parameter in parameters if "=" not in parameter]:
        raise ServerError(f"parameter {wrong[0]!r}: expected KEY=VALUE, for example recipe=tiny")
    url = _running_server()
    deployment = name if "/" in name else f"{name}/{name}"
    known = sorted(found["name"] for found in _ask(url, "/deployments/filter", {}) or [])
    if known and deployment.partition("/")[2] not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ServerError(f"no deployment {name!r} at {url}; {hint}there are {', '.join(known)}")
    options = [word for parameter in parameters for word in ("--param", parameter)]
    command = _prefect("deployment", "run", deployment, *options, *(["--watch"] if watch else []))
    run_id = ""
    with subprocess.Popen(command, env=environment(workspace, url), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            run_id = run_id or line.partition("UUID: ")[2].strip()
    if process.returncode and run_id and (run := _ask(url, f"/flow_runs/{run_id}")):
        print(without_passwords(run["state"]["message"]), file=sys.stderr)
    return process.returncode


def deploy(workspace: Workspace) -> int:
    """Create the work pool if it is missing, and all deployments of prefect.yaml. Returns Prefect's exit code.

    The server is the one at `PREFECT_API_URL`, else a running `maskhand serve`, else a temporary one on the workspace's
    database, which `maskhand serve` opens later.
    """
    try:
        return _deploy(environment(workspace, _running_server()))
    except ServerError:
        if "PREFECT_API_URL" in os.environ:
            raise
    with server(workspace, _free_port(), workspace.prefect_home / "server.log") as running:
        return _deploy(environment(workspace, running.url))


def serve(workspace: Workspace, port: int = PORT) -> int:
    """Run server, deployments and worker of this workspace until Ctrl-C, then return 0; ServerError if one dies."""
    log = workspace.prefect_home / "server.log"
    _end_by_interrupt()
    with server(workspace, port, log) as running:
        url = running.url
        if code := _deploy(environment(workspace, url)):
            return code
        try:
            with worker(environment(workspace, url)) as process:
                print(f"Prefect: http://{HOST}:{port} (log: {log}); Ctrl-C ends it", flush=True)
                print(f"for the prefect command in another terminal: export PREFECT_API_URL={url}", flush=True)
                while process.poll() is None and running.process.poll() is None:
                    time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            return 0
        if (ended := running.process.poll()) is not None:
            raise ServerError(f"the Prefect server ended by itself with exit code {ended}; its log is {log}")
    raise ServerError(f"the Prefect worker ended by itself with exit code {process.returncode}")


def work(workspace: Workspace) -> int:
    """Run a worker of the server at `PREFECT_API_URL`, else of a running `maskhand serve`, until Ctrl-C or SIGTERM.

    Returns 0. A server that does not answer yet is waited for. Raises ServerError if there is none, or the worker dies.
    """
    url = os.environ.get("PREFECT_API_URL") or _running_server()
    _end_by_interrupt()
    try:
        with worker(environment(workspace, url)) as process:
            code = process.wait()
    except KeyboardInterrupt:
        return 0
    raise ServerError(f"the Prefect worker ended by itself with exit code {code}")


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
        process = _start(_prefect("server", "start", "--host", HOST, "--port", str(port)), own, output)
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
def worker(variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker of the pool. At the end its runs are terminated first, and write their last state.

    Prefect's worker would kill them while they do, and they would stay `Running` for ever on the server.
    """
    process = _start(_prefect("worker", "start", "--pool", POOL, "--type", "process"), variables, None)
    try:
        yield process
    finally:
        _end_runs(process)
        _stop(process, signal.SIGINT)


def _end_by_interrupt() -> None:
    # Also when started with `&`: a shell makes background children ignore SIGINT, but the worker is stopped with it.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)


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


def _deploy(variables: Mapping[str, str]) -> int:
    steps = (
        ("work-pool", "create", POOL, "--type", "process"),
        ("deploy", "--all", "--prefect-file", str(PREFECT_FILE)),
    )
    for step in steps:
        run = subprocess.run(_prefect(*step), env=dict(variables), capture_output=True, text=True, check=False)
        said = f"{run.stdout} {run.stderr}"
        # An existing pool may be of another type, with its own job template: it is not changed.
        if run.returncode and not ("create" in step and _POOL_EXISTS in " ".join(said.split())):
            print(without_passwords(said), file=sys.stderr)
            return run.returncode
    print(f"deployed every flow of {PREFECT_FILE.name} to the work pool {POOL!r}")
    return 0


def _running_server() -> str:
    """URL of the running server; ServerError if there is none."""
    url = (os.environ.get("PREFECT_API_URL") or f"http://{HOST}:{PORT}/api").rstrip("/")
    if not answers(url):
        raise ServerError(
            f"no Prefect server answers at {url}; start `maskhand serve` in another terminal, or set PREFECT_API_URL "
            "to the server's http://HOST:PORT/api"
        )
    return url


def _free_port() -> int:
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


def _ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON response of the API at `url` to a GET, or with a body to a POST; None on failure, as behind a login."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except OSError:
        return None


def _prefect(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *words]


def _start(command: list[str], variables: Mapping[str, str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    # In its own session: Ctrl-C reaches only us, and we stop the worker before its server.
    process = subprocess.Popen(
        command,
        env=dict(variables),
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
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
