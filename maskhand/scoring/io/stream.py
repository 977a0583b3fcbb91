"""Work through the pieces of a benchmark on all cores and add up what is found; at most a few pieces are in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from maskhand.metrics.accumulate import Addable
from maskhand.shards.read_ahead import in_order

Piece = TypeVar("Piece")
Totals = TypeVar("Totals", bound=Addable)


def total(pieces: Iterable[Piece], measure: Callable[[Piece], Totals], workers: int | None = None) -> Totals | None:
    """Sum of `measure(piece)`, None without pieces; the same to the last bit for any number of workers.

    Threads, because numpy lets go of the interpreter in its loops; each is its own core, so BLAS gets one thread.
    """
    workers = workers or len(os.sched_getaffinity(0))
    found: Totals | None = None
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for part in in_order(pool, measure, pieces, ahead=2 * workers):
            found = part if found is None else found + part
    return found
