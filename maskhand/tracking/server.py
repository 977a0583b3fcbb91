"""The tracking store, looked at before anything long is started for it: does it answer, and can it keep models?"""

from __future__ import annotations

import re
from http import HTTPStatus
from importlib import metadata
from typing import Any

from maskhand.tracking.database import KINDS, check_database
from maskhand.tracking.databricks import check_databricks
from maskhand.tracking.errors import TrackingServerError
from maskhand.tracking.store import import_mlflow

OLDEST_MAJOR = 3
"""MLflow 2's servers take runs and curves, and know no models that belong to a run."""
_INSTEAD = "or unset MLFLOW_TRACKING_URI for a database in the workspace"
_WRITE = f"write http://HOST:PORT, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE, {_INSTEAD}"


def server_version(uri: str, retries: int = 4) -> str:
    """Version of the server at `uri`; "" for a database or folder, and for a server that does not tell it.

    retries: with pauses of 2, 4, 8, ... seconds; four take 30 s where nothing listens, 80 s where a server accepts
    connections and stays silent. Raises TrackingServerError for a server that does not answer as MLflow would, or is
    too old, and for what `check_database` finds; StorageError.
    """
    if not uri.startswith(("http://", "https://")):
        _check_local(uri)
        return ""
    version = _answer(uri, "/version", retries)
    runs = _answer(uri, "/api/2.0/mlflow/experiments/search", retries, params={"max_results": 1})
    try:
        is_mlflow = runs.status_code == HTTPStatus.OK and isinstance(runs.json(), dict)
    except ValueError:
        is_mlflow = False
    if not is_mlflow:
        raise TrackingServerError(
            f"what answers at {uri} is no MLflow server (HTTP {runs.status_code} to a question for its experiments); "
            f"correct MLFLOW_TRACKING_URI, {_INSTEAD}"
        )
    said = version.text.strip()
    if version.status_code != HTTPStatus.OK or not (found := re.match(r"(\d+)\.\d+", said)):
        return ""
    if int(found[1]) < OLDEST_MAJOR:
        raise TrackingServerError(
            f"the MLflow server at {uri} is of version {said}; {OLDEST_MAJOR}.0 or later is needed, as older ones "
            f"cannot register a trained model: upgrade it, {_INSTEAD}"
        )
    return said


def _answer(uri: str, path: str, retries: int, **asked: Any) -> Any:
    """The response of requests, of any status that is neither a refusal nor the server's own failure."""
    import_mlflow(uri)
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        answer = http_request(
            get_default_host_creds(uri.rstrip("/")), path, "GET",
            max_retries=retries, backoff_factor=2, timeout=10, raise_on_status=False, **asked,
        )  # fmt: skip
    except Exception as error:
        raise TrackingServerError(
            f"the MLflow server at {uri} does not answer ({type(error).__name__}); start it, {_INSTEAD}",
            retryable=True,
        ) from error
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise TrackingServerError(
            f"the MLflow server at {uri} refuses access; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TrackingServerError(
            f"the MLflow server at {uri} fails (HTTP {answer.status_code}); see its log and that of a proxy before it, "
            f"{_INSTEAD}",
            retryable=True,
        )
    return answer


def _check_local(uri: str) -> None:
    """Raises for a store that is no server and that MLflow could not use."""
    kind = uri.partition("://")[0].partition("+")[0] if "://" in uri else "file"
    plugins = {plugin.name for plugin in metadata.entry_points(group="mlflow.tracking_store")}
    if kind in KINDS:
        check_database(uri)
    elif uri.startswith("databricks"):
        check_databricks(uri)
    elif kind == "file" and not re.match(r"uc\b", uri):
        from mlflow import environment_variables

        allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)  # other versions take all folders
        if allowed is not None and not allowed.get():
            raise TrackingServerError(f"MLFLOW_TRACKING_URI={uri}: MLflow keeps no runs in folders any more; {_WRITE}")
    elif kind not in {"file", *plugins}:
        raise TrackingServerError(f"MLFLOW_TRACKING_URI={uri}: MLflow knows no {kind}://; {_WRITE}")


def pages(uri: str, program: str, host: str) -> list[tuple[str, str]]:
    """Names and places of a store's pages: a server's own address, or the command of `program` that shows them."""
    if uri.startswith("http"):
        return [("MLflow pages", uri)]
    return [
        ("MLflow pages", f"{program} server --host {host} --backend-store-uri {uri}"),
        ("", f"then http://{host}:5000"),
    ]
