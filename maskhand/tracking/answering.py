"""MLflow's client with a sentence for a store that is lost in the middle, which MLflow tells in pages."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maskhand.errors import MaskhandError
from maskhand.foreign_errors import explained
from maskhand.tracking.errors import TrackingServerError

_REQUEST_FAILED = "API request to "
"""How MLflow begins what it says of a request without an answer, or with one that is not its server's."""
_REASONS = (
    (r"connection refused", "nothing listens there"),
    (r"timed out|timeout", "it is silent"),
    (r"name resolution|name or service|nodename", "the name of its machine is not known"),
    (r"valid json", "another program answers"),
    (r"too many (\d{3}) error|error code (\d{3})", "HTTP {}"),
)


class AnsweringClient:
    """MLflow's client; each of its methods raises TrackingServerError where the store does not answer."""

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @functools.wraps(method)
        def asked(*arguments: Any, **named: Any) -> Any:
            with answering(self._uri):
                return method(*arguments, **named)

        return asked


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """A block of requests to the store at `uri`. Raises TrackingServerError where it does not answer any more, and for
    a database that fails; what it answers, such as that there is no such run, stays MLflow's."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MaskhandError:
        raise
    except (MlflowException, requests.RequestException) as error:
        said = " ".join(str(error).split())
        if isinstance(error, requests.RequestException) or said.startswith(_REQUEST_FAILED):
            raise TrackingServerError(
                f"the MLflow server at {uri} does not answer any more ({_reason(said) or type(error).__name__}); start "
                "it again, or see its log and that of a proxy before it",
                retryable=True,
            ) from error
        if (known := explained(error)) is not None:
            raise TrackingServerError(known, retryable=True) from error
        raise


def _reason(said: str) -> str | None:
    for pattern, words in _REASONS:
        if found := re.search(pattern, said, re.IGNORECASE):
            return words.format(next(filter(None, found.groups()), ""))
    return None
