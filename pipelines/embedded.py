"""Prefect's embedded server: started with enough time, restarted when lost, ended with the process that it serves.

Prefect reads its settings on import, so `runtime.prepare` must be called before.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prefect
import psutil
from prefect.context import get_settings_context
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_PROFILES_PATH

from maskhand.errors import MaskhandError, without_passwords
from maskhand.pipelines.database import check_database, described
from maskhand.pipelines.lifeline import end_with_us
from maskhand.pipelines.runtime import HOST
from maskhand.pipelines.server import answers
from maskhand.pipelines.server_log import reason_in

IDLE_S = 60.0
"""Timeout without an answer and without CPU use: on a busy machine the server may just be slow."""
START_S = 600.0
"""Timeout of the whole start."""
LONG_S = 30.0
"""After this time a warning says what is waited for."""
_STARTS = 2
"""Attempts: a start may fail once when two commands open a new database or take the same port at the same time."""
_RESTARTS = 3
"""Maximum number of restarts of a lost server for one command."""
_LOOK_S = 0.2
_LOST = "the embedded Prefect server has ended, killed or out of memory"


class EmbeddedServerError(MaskhandError, RuntimeError):
    """The embedded server did not start, or was lost; the message says what to do."""

    retryable = True


@contextmanager
def embedded_server() -> Iterator[None]:
    """A context with a server for this process's flows, or the one at PREFECT_API_URL. Raises the errors of
    `check_server`, and EmbeddedServerError where the embedded one does not start or is lost."""
    check_server()
    if PREFECT_API_URL.value():
        yield
        return
    server = SubprocessASGIServer()  # a singleton per process, which Prefect's clients then find running
    atexit.register(server.stop)
    log, done = PREFECT_HOME.value() / "embedded.log", threading.Event()
    _start(server, log)
    threading.Thread(target=_keep, args=(server, log, done), name="embedded-prefect", daemon=True).start()
    try:
        yield
    except Exception as error:
        if isinstance(error, MaskhandError) or not _is_lost(server):
            raise
        raise EmbeddedServerError(f"{_LOST}; the same command goes on where it was") from error
    finally:
        done.set()


def check_server() -> str:
    """Words for the server of this process's flows. Raises EmbeddedServerError where none answers at PREFECT_API_URL,
    and DatabaseError for the embedded one's."""
    if url := PREFECT_API_URL.value():
        if not answers(url):
            raise EmbeddedServerError(
                f"no Prefect server answers at PREFECT_API_URL={without_passwords(url)}{_advice()}"
            )
        return without_passwords(url)
    check_database(PREFECT_HOME.value())
    return f"embedded server, database {described(PREFECT_HOME.value())}"


def _advice() -> str:
    """What to do about an address without a server, which may be one of the user's profiles."""
    instead = "start it, correct the address (http://HOST:PORT/api), or"
    if os.environ.get("PREFECT_API_URL"):
        return f"; {instead} unset the variable for an embedded one"
    profile = get_settings_context().profile
    where = f", as the profile {profile.name!r} in {PREFECT_PROFILES_PATH.value()} says"
    return f"{where}; {instead} set PREFECT_PROFILE=ephemeral for an embedded one"


def _keep(server: SubprocessASGIServer, log: Path, done: threading.Event) -> None:
    """Restart a lost server on its port and database, until `done`; Prefect's clients retry for minutes."""
    for _ in range(_RESTARTS):
        while not _is_lost(server):
            if done.wait(_LOOK_S):
                return
        logging.getLogger(__name__).warning(f"{_LOST}; it is started again")
        try:
            _start(server, log, server.port)
        except EmbeddedServerError as error:
            logging.getLogger(__name__).error(str(error))
            return


def _is_lost(server: SubprocessASGIServer) -> bool:
    process = server.server_process
    return process is None or process.poll() is not None


def _start(server: SubprocessASGIServer, log: Path, port: int | None = None) -> None:
    """Start the server's process on `port`, or on a free one, and wait until it answers.

    Prefect's own `start` restarts a failing server endlessly, and prints pages of its output.
    """
    begin_s = time.monotonic()
    for _ in range(_STARTS):
        server.port = port or server.find_available_port()
        with log.open("wb") as output:
            process = subprocess.Popen(_command(server.port), env=_environment(), stdout=output, stderr=output)
        server.server_process, server.running = process, True
        end_with_us(process.pid, signal.SIGKILL)
        if _answers_in_time(server.api_url, process):
            return
        if process.poll() is None:
            server.stop()
            raise EmbeddedServerError(
                f"the embedded Prefect server does not answer after {time.monotonic() - begin_s:.0f} s; end other "
                f"programs, above all such that have its database open ({described(log.parent)}), or name a running "
                f"server in PREFECT_API_URL; its log is {log}"
            )
    server.stop()
    raise EmbeddedServerError(
        f"the embedded Prefect server ended while it started (exit code {process.returncode}: {reason_in(log)}); its "
        f"log is {log}, and its database, which may be moved away for a new one, {described(log.parent)}"
    )


def _answers_in_time(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server at `url` answers before its process ends, is idle for `IDLE_S`, or exceeds `START_S`."""
    begin_s = active_s = time.monotonic()
    is_told, computed_s = False, 0.0
    while (spent_s := _cpu_s(process)) is not None:
        if answers(url):
            return True
        now_s = time.monotonic()
        if spent_s > computed_s + 0.1:
            computed_s, active_s = spent_s, now_s
        if now_s - active_s > IDLE_S or now_s - begin_s > START_S:
            return False
        if now_s - begin_s > LONG_S and not is_told:
            is_told = True
            logging.getLogger(__name__).warning(
                f"the embedded Prefect server needs more than {LONG_S:g} s to start on this busy machine"
            )
        time.sleep(_LOOK_S)
    return False


def _cpu_s(process: subprocess.Popen[bytes]) -> float | None:
    """CPU seconds used by a process; None if it has ended."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return None if process.poll() is not None else times.user + times.system


def _command(port: int) -> list[str]:
    app = ["--app-dir", str(prefect.__module_path__.parent), "--factory", "prefect.server.api.server:create_app"]
    place = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "uvicorn", *app, *place, "--log-level", "error", "--lifespan", "on"]


def _environment() -> dict[str, str]:
    """The environment of Prefect's own embedded servers: without pages and background services; only errors logged."""
    settings = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    said = ("PREFECT_LOGGING_SERVER_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
    return os.environ | settings | dict.fromkeys(said, "ERROR")
