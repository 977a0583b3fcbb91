"""Prefect's embedded server: started in good time, and gone with the process that it serves.

Prefect reads its settings on import: `runtime.prepare` comes first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL

from maskhand.errors import MaskhandError
from maskhand.pipelines.lifeline import end_with_us

START_S = 600
"""Time that the server may take on a busy machine."""


class EmbeddedServerError(MaskhandError, RuntimeError):
    """The embedded server did not start, or was lost; the message says what to do."""

    retryable = True


@contextmanager
def embedded_server() -> Iterator[None]:
    """A context with a server for this process's flows, unless an existing one is named. Raises EmbeddedServerError."""
    if PREFECT_API_URL.value():
        yield
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
    try:
        yield
    except Exception as error:
        if isinstance(error, MaskhandError) or (code := server.server_process.poll()) is None:
            raise
        raise EmbeddedServerError(
            f"the embedded Prefect server has ended (exit code {code}), killed or out of memory; the same command goes "
            "on where it was"
        ) from error
