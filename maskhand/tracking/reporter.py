"""Curves of a training while it runs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from maskhand.errors import without_passwords
from maskhand.tracking.runs import Runs

LONGEST_S = 60.0
"""Time that a training waits at its end for the last points."""
AGAIN_S = 60.0
"""Pause after a failure. The points of that time come into the record when the training has ended."""


class RunReporter:
    """`report(step, metrics)` into a tracked run from a training worker; picklable, logs in a thread of its own.

    A tracker that cannot be reached costs its curves, not the training: `close` says so, and metrics.jsonl has them.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lost: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RunReporter, (self._uri, self._run_id)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="maskhand-mlflow", daemon=True)
            self._thread.start()
        self._queue.put((step, dict(metrics)))

    def close(self) -> str | None:
        """Wait until everything is written, a minute at most; a sentence where it was not."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=LONGEST_S)
            if self._thread.is_alive() and self._lost is None:
                self._lost = f"it does not answer for {LONGEST_S:g} s"
            self._thread = None
        if self._lost is None:
            return None
        return without_passwords(
            f"not all points of its curves reached {self._uri} ({self._lost}); metrics.jsonl has them"
        )

    def _work(self) -> None:
        runs, next_s = Runs(self._uri), 0.0
        while (item := self._queue.get()) is not None:
            if time.monotonic() < next_s:
                continue
            try:
                runs.log_metrics(self._run_id, item[1], item[0])
            except Exception as error:
                self._lost = " ".join(str(error).split())[:200]
                next_s = time.monotonic() + AGAIN_S
