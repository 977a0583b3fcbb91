"""Patience with a store that is down for a while: its requests are repeated for a minute before they fail.

botocore's own repetitions end within three seconds (50 ms, doubled), which no restart of a store is done in. They are
left alone, and alone where AWS_MAX_ATTEMPTS is set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from maskhand.storage_errors import NO_ANSWER

OUTAGE_S = 60.0
"""Time for which a failed request is repeated, from its first failure on."""
_PAUSE_S = 2.0
_SAY_AFTER_S = 5.0
_DOWN = (500, 502, 503, 504)
"""Answers of a store, or of a proxy before it, that has trouble of its own."""
_patient = ContextVar("patient", default=True)


@contextmanager
def impatient() -> Iterator[None]:
    """Within this block the requests of this thread are given up as soon as botocore gives up."""
    before = _patient.set(False)
    try:
        yield
    finally:
        _patient.reset(before)


def add_to(client: Any) -> None:
    """Have a client of boto3 repeat what fails while its store is down."""
    client.meta.events.register_last("needs-retry.s3", _pause_s, unique_id="maskhand-patience")


def _pause_s(
    endpoint: Any, request_dict: dict[str, Any], response: Any, caught_exception: Any, **_: object
) -> float | None:
    """Seconds until the request is repeated, None to give it up; counts where botocore's handlers return None.

    response: the HTTP answer and what it says, None when none came; caught_exception: why none came.
    """
    silent = type(caught_exception).__name__ in NO_ANSWER
    down = silent if response is None else response[0].status_code in _DOWN
    if not down or not _patient.get():
        return None
    context, now_s = request_dict["context"], time.monotonic()
    failing_s = now_s - context.setdefault("first_failure_s", now_s)
    if failing_s > _SAY_AFTER_S and not context.get("said"):
        context["said"] = True
        logging.getLogger(__name__).warning(
            f"the store at {endpoint.host} does not answer; it is asked for {OUTAGE_S:.0f} s before this is an error"
        )
    return _PAUSE_S if failing_s < OUTAGE_S else None
