"""Work through the pieces of a benchmark on all cores and add up what is found; at most a few pieces are in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from maskhand.evaluation.metrics.accumulate import Addable

Piece = TypeVar("Piece")
Totals = TypeVar("Totals", bound=Addable)


def total(pieces: Iterable[Piece], measure: Callable[[Piece], Totals], workers: int | None = None) -> Totals | None:
    """Sum of `measure(piece)`, None without pieces; the same to the last bit for any number of workers.

    Threads, because numpy lets go of the interpreter in its loops; each is its own core, so BLAS gets one thread.
    """
    workers = workers or len(os.sched_getaffinity(0))
    running: deque[Future[Totals]] = deque()
    found: Totals | None = None
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for piece in pieces:
            running.append(pool.submit(measure, piece))
            if len(running) > 2 * workers:
                found = _add(found, running.popleft().result())
        while running:
            found = _add(found, running.popleft().result())
    return found


def _add(found: Totals | None, more: Totals) -> Totals:
    return more if found is None else found + more
