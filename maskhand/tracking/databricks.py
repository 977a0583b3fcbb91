"""Databricks as the tracking store: credentials and host, looked at before MLflow asks for them for minutes."""

from __future__ import annotations

import logging
import socket
import urllib.request
from urllib.parse import urlsplit

from maskhand.tracking.errors import TrackingServerError

_WAIT_S = 10
_ELSE = "or unset MLFLOW_TRACKING_URI for a database in the workspace"


def check_databricks(uri: str) -> None:
    """Raises TrackingServerError where nobody is logged in to Databricks here, or its host does not answer.

    uri: `databricks` or `databricks://PROFILE`, of `~/.databrickscfg`; keys in Databricks' own secrets
    (`databricks://SCOPE:PREFIX`) are not looked at.
    """
    from databricks.sdk.config import Config

    profile = uri.partition("://")[2] or None
    if profile is not None and ":" in profile:
        return
    sdk = logging.getLogger("databricks.sdk")
    level = sdk.level
    sdk.setLevel(logging.CRITICAL)
    try:
        host = Config(profile=profile, retry_timeout_seconds=_WAIT_S, http_timeout_seconds=_WAIT_S).host or ""
        place = urlsplit(host if "://" in host else f"https://{host}")
        if place.scheme not in urllib.request.getproxies():
            socket.create_connection((place.hostname or "", place.port or 443), timeout=_WAIT_S).close()
    except ValueError as error:
        raise TrackingServerError(
            f"MLFLOW_TRACKING_URI={uri}: no credentials for Databricks are found here ({_first_line(error)}); set "
            f"DATABRICKS_HOST and DATABRICKS_TOKEN, run `databricks auth login`, {_ELSE}"
        ) from error
    except OSError as error:
        raise TrackingServerError(
            f"MLFLOW_TRACKING_URI={uri}: nothing answers at {host} ({(error.strerror or str(error)).lower()}); correct "
            f"DATABRICKS_HOST, {_ELSE}",
            retryable=True,
        ) from error
    finally:
        sdk.setLevel(level)


def _first_line(error: ValueError) -> str:
    return str(error).partition("\n")[0].partition(", please check")[0][:200]
