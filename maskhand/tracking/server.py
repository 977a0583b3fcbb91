"""The tracking server, looked at before anything long is started for it: does it answer, and can it keep models?"""

from __future__ import annotations

import re

from maskhand.errors import MaskhandError
from maskhand.tracking.store import import_mlflow

OLDEST_MAJOR = 3
"""MLflow 2's servers take runs and curves, and know no models that belong to a run."""


class TrackingServerError(MaskhandError, RuntimeError):
    """A tracking server that cannot serve; the message says what to do."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


def server_version(uri: str, retries: int = 4) -> str:
    """Version of the server at `uri`; "" for a database or folder, and for a server that does not tell it.

    retries: with pauses of 2, 4, 8, ... seconds. Raises TrackingServerError when it does not answer or is too old: with
    four retries after 30 s where nothing listens, after 80 s where a server accepts connections and stays silent.
    """
    if not uri.startswith(("http://", "https://")):
        return ""
    import_mlflow(uri)
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri.rstrip("/")), "/version", "GET",
            max_retries=retries, backoff_factor=2, timeout=10, raise_on_status=False,
        )  # fmt: skip
    except Exception as error:
        raise TrackingServerError(
            f"the MLflow server at {uri} does not answer ({type(error).__name__}); start it, or unset "
            "MLFLOW_TRACKING_URI for a database in the workspace",
            retryable=True,
        ) from error
    version = answer.text.strip()
    if answer.status_code in (401, 403):
        raise TrackingServerError(
            f"the MLflow server at {uri} refuses access; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if answer.status_code != 200 or not (found := re.match(r"(\d+)\.\d+", version)):
        return ""
    if int(found[1]) < OLDEST_MAJOR:
        raise TrackingServerError(
            f"the MLflow server at {uri} is of version {version}; {OLDEST_MAJOR}.0 or later is needed, as older ones "
            "cannot register a trained model: upgrade it, or unset MLFLOW_TRACKING_URI for a database in the workspace"
        )
    return version


def pages(uri: str, program: str, host: str) -> list[tuple[str, str]]:
    """Names and places of a store's pages: a server's own address, or the command of `program` that shows them."""
    if uri.startswith("http"):
        return [("MLflow pages", uri)]
    return [
        ("MLflow pages", f"{program} server --host {host} --backend-store-uri {uri}"),
        ("", f"then http://{host}:5000"),
    ]
