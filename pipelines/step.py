"""How every task of the flows behaves: cached by its inputs and the code, retried, told to the server.

A task calls one function of `maskhand.steps` and returns its Receipt: a URI and a digest, never data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec
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

ARTIFACT_EVERY_S = 3.0
"""Progress reaches the server at most this often; SQLite is not a progress bar."""


def _code_digest(_context: object, _inputs: object) -> str:
    return code_digest()


CODE = CachePolicy.from_cache_key_fn(_code_digest)
"""A changed library asks every step again. That is cheap: finished shards and trainings are found and kept."""


def is_worth_a_retry(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Lost workers and networks may come back; a wrong parameter, name or program and a missing file stay wrong."""
    error = state.data if isinstance(state.data, BaseException) else getattr(state.data, "result", None)
    if isinstance(error, MaskhandError):
        return error.retryable
    return not isinstance(error, ValueError | FileNotFoundError | TypeError | LookupError)


def step(name: str, retries: int = 2) -> Callable[[Callable[P, Receipt]], Task[P, Receipt]]:
    """A task with the house's cache, retries and persisted control data."""
    return task(
        name=name,
        cache_policy=INPUTS + TASK_SOURCE + CODE,
        persist_result=True,
        result_serializer="json",
        retries=retries,
        retry_delay_seconds=exponential_backoff(5),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_worth_a_retry,
    )


def done(of: Task[P, Receipt], *arguments: P.args, **named: P.kwargs) -> Receipt:
    """Run a step, or take its cached receipt when the files it names are still there, unchanged."""
    receipt = of(*arguments, **named)
    if receipt.holds():
        return receipt
    return of.with_options(refresh_cache=True)(*arguments, **named)


@contextmanager
def told(title: str, key: str) -> Iterator[Progress]:
    """A Progress shown on the console and kept on the server as the progress artifact `key`."""
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
    update_progress_artifact(artifact_id, 100.0)  # some steps end without ever knowing their total


def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Keep a table on the server under a stable key, so that its page shows the history."""
    create_table_artifact(table=list(rows), key=key, description=description)


def slug(*words: str) -> str:
    """An artifact key of lower-case letters, digits and dashes: ("shards", "freihand_synth/training") -> ..."""
    text = "-".join(words).lower()
    return "-".join(filter(None, "".join(c if c.isalnum() and c.isascii() else "-" for c in text).split("-")))
