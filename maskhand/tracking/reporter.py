"""Curves of a training while it runs."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any

from maskhand.errors import without_passwords
from maskhand.tracking.runs import Runs


class RunReporter:
    """`report(step, metrics)` into a tracked run from a training worker; picklable, logs in a thread of its own.

    A tracker that cannot be reached costs its curves, not the training: one warning, and metrics.jsonl has them all.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RunReporter, (self._uri, self._run_id)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="maskhand-mlflow", daemon=True)
            self._thread.start()
        self._queue.put((step, dict(metrics)))

    def close(self) -> None:
        """Wait until everything is written."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=60)
            self._thread = None

    def _work(self) -> None:
        runs = Runs(self._uri)
        failed = False
        while (item := self._queue.get()) is not None:
            try:
                if not failed:
                    runs.log_metrics(self._run_id, item[1], item[0])
            except Exception as error:
                failed = True
                warning = f"warning: curves are not tracked any more, {self._uri} fails: {error}"
                print(without_passwords(warning), file=sys.stderr)
