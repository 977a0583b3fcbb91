"""Prefect's embedded server: started in good time, and gone with the process that it serves, however that ends."""

from __future__ import annotations

import atexit
import signal
import subprocess

from maskhand.errors import MaskhandError

START_S = 600
"""Time that the server may take on a busy machine."""


class EmbeddedServerError(MaskhandError, RuntimeError):
    """The embedded server did not start; the message says what to do."""

    retryable = True


def start_embedded_server() -> None:
    """Start the server of this process's flows, unless an existing one is named. Raises EmbeddedServerError."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    server = SubprocessASGIServer()  # there is one a process: every client of Prefect's finds it running
    try:
        server.start(timeout=START_S)
    except RuntimeError as error:
        raise EmbeddedServerError(
            f"the embedded Prefect server did not start within {START_S} s; end other programs and start again, or "
            "name a running server in PREFECT_API_URL"
        ) from error
    assert server.server_process is not None, "it has answered"
    end_with_us(server.server_process.pid, signal.SIGKILL)


def end_with_us(process: int, with_signal: signal.Signals) -> None:
    """Have a process end when this one is killed, when nobody is left to end it.

    A shell holds the other end of a pipe: it closes with us, and says so when we end as we should.
    """
    watch = 'read -r ended || kill -"$1" "$0"'
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", watch, str(process), str(with_signal.value)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us
    )
    atexit.register(watcher.communicate, b"ended\n")
