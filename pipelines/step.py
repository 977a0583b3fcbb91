"""The common behavior of all tasks: caching by inputs and code, retries, and progress artifacts on the server.

A task calls one function of `maskhand.steps` and returns its Receipt: a URI and a digest, never data.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import Task, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import INPUTS, TASK_SOURCE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from maskhand.errors import MaskhandError
from maskhand.progress import Progress, both, shown
from maskhand.provenance import code_digest
from maskhand.steps.names import FLOW_RUN
from maskhand.steps.receipt import Receipt

P = ParamSpec("P")
R = TypeVar("R", bound=Receipt)

ARTIFACT_EVERY_S = 3.0
"""Minimum interval between progress updates on the server, to spare its SQLite database."""


def _code_digest(_context: object, _inputs: object) -> str:
    return code_digest()


CACHE_POLICY = INPUTS + TASK_SOURCE + CachePolicy.from_cache_key_fn(_code_digest)
"""A code change invalidates every step. That is cheap: finished shards and trainings are found and reused."""


def is_worth_a_retry(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry may help: after lost workers or connections, but not after programming errors, wrong parameters
    or missing files."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None)
    if isinstance(error, MaskhandError):
        return error.retryable
    return not isinstance(error, ValueError | FileNotFoundError | TypeError | LookupError)


def step(name: str, retries: int = 2) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task whose receipt is cached, and which is retried if its error says that this may help."""
    return task(
        name=name,
        cache_policy=CACHE_POLICY,
        persist_result=True,
        result_serializer="json",
        retries=retries,
        retry_delay_seconds=exponential_backoff(5),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_worth_a_retry,
    )


def run_cached(of: Task[P, R], cache_inputs: Mapping[str, str], *arguments: P.args, **named: P.kwargs) -> R:
    """Run a step, or return its cached receipt if the file that it names still exists, unchanged.

    cache_inputs: digests of further inputs that determine the result: data, cards, weights.
    """
    inputs = CachePolicy.from_cache_key_fn(lambda _context, _inputs: json.dumps(cache_inputs, sort_keys=True))
    keyed = of.with_options(cache_policy=CACHE_POLICY + inputs)
    receipt = keyed(*arguments, **named)
    if receipt.is_current():
        return receipt
    return keyed.with_options(refresh_cache=True)(*arguments, **named)


@contextmanager
def progress_artifact(title: str, key: str) -> Iterator[Progress]:
    """A Progress shown on the console and on the server as the progress artifact `key`."""
    os.environ[FLOW_RUN] = str(flow_run.id)
    artifact_id = create_progress_artifact(0.0, key=key, description=title)
    assert isinstance(artifact_id, UUID), "created in a synchronous flow"
    last_s = time.monotonic()

    def to_server(done: float, total: float, text: str = "") -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if total and (done >= total or now_s - last_s >= ARTIFACT_EVERY_S):
            last_s = now_s
            update_progress_artifact(artifact_id, min(100.0, 100.0 * done / total), description=text or title)

    with shown(title) as to_console:
        yield both(to_console, to_server)
    update_progress_artifact(artifact_id, 100.0)  # some steps never know their total


def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Publish a table on the server under a stable key, so that its page shows the history."""
    create_table_artifact(table=list(rows), key=key, description=description)


def slug(*words: str) -> str:
    """An artifact key of lower-case letters, digits and dashes: ("shards", "freihand_synth/training") -> ..."""
    text = "-".join(words).lower()
    return "-".join(filter(None, "".join(c if c.isalnum() and c.isascii() else "-" for c in text).split("-")))
