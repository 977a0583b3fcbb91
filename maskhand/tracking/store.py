"""MLflow itself: imported late, without telemetry, and pointed at a store."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""Where the user has set none. With MLflow's own 7 retries of 120 s, each request to a server that is gone takes four
minutes, and to one that is silent twenty; with these half a minute, and five."""


class DefaultStore:
    """Makes a store the process's default for a block: MLflow's model functions know no other way."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        mlflow = import_mlflow(self._uri)
        self._environment = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
        self._before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)

    def __exit__(self, *_: object) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._before[0])
        mlflow.set_registry_uri(self._before[1])
        # Setting a store writes it into the environment too, where `Workspace.mlflow_uri` would take it for the user's.
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def opening(uri: str) -> Iterator[None]:
    """A context that one process at a time is in, for the same database file: opening a new one creates its tables,
    which fails where another process does it too. Where no lock can be made, as beside a database that can only be
    read, nobody waits."""
    with contextlib.ExitStack() as stack:
        if uri.startswith("sqlite:///"):
            with contextlib.suppress(OSError):
                lock = f"{uri.removeprefix('sqlite:///').partition('?')[0]}.lock"
                fcntl.flock(stack.enter_context(open(lock, "w")), fcntl.LOCK_EX)
        yield


def import_mlflow(uri: str) -> Any:
    """The package, with the folder of a database file made."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)  # what becomes of tables is nobody's business here
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it raises the page of SQL that it logs
    return mlflow
