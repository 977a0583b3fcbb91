"""`maskhand serve` and `maskhand worker`: server and worker in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import time

from maskhand import signals
from maskhand.pipelines.deployments import create, end_lost
from maskhand.pipelines.runtime import HOST, PORT, prefect_home
from maskhand.pipelines.server import ServerError, environment, running_server, server, worker
from maskhand.workspace import Workspace

_LOOK_S = 0.5
"""Interval between checks of whether server and worker are alive."""


def serve(workspace: Workspace, port: int = PORT) -> int:
    """Run server, deployments and worker of this workspace until Ctrl-C, then return 0; ServerError if one dies."""
    log = workspace.prefect_home / "server.log"
    _end_by_interrupt()
    with server(workspace, port, log) as running:
        url = running.url
        if code := create(environment(workspace, url)):
            return code
        end_lost(url)
        try:
            with worker(environment(workspace, url), log.with_name("worker.log")) as process:
                print(f"Prefect: http://{HOST}:{port} (logs: {log}, worker.log); Ctrl-C ends it", flush=True)
                print(f"for the prefect command in another terminal: export PREFECT_API_URL={url}", flush=True)
                while process.poll() is None and running.process.poll() is None:
                    time.sleep(_LOOK_S)
        except KeyboardInterrupt:
            end_lost(url)
            print("the worker and its runs have ended", flush=True)
            return 0
        if (ended := running.process.poll()) is not None:
            raise ServerError(f"the Prefect server ended by itself with exit code {ended}; its log is {log}")
    raise ServerError(f"the Prefect worker ended by itself with exit code {process.returncode}")


def work(workspace: Workspace) -> int:
    """Run a worker of the server at `PREFECT_API_URL`, else of a running `maskhand serve`, until Ctrl-C or SIGTERM.

    Returns 0. A server that does not answer yet is waited for. Raises ServerError if there is none, or the worker dies.
    """
    url = os.environ.get("PREFECT_API_URL") or running_server()
    _end_by_interrupt()
    try:
        with worker(environment(workspace, url), prefect_home(workspace) / "worker.log") as process:
            code = process.wait()
    except KeyboardInterrupt:
        return 0
    raise ServerError(f"the Prefect worker ended by itself with exit code {code}")


def _end_by_interrupt() -> None:
    # Also when started with `&`: a shell makes background children ignore SIGINT, but the worker is stopped with it.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signals.only_first(signal.default_int_handler))
