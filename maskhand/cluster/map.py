"""Map a function over shards with Ray Data; results come back in the items' order."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from maskhand.cluster.session import ensure_ray

T = TypeVar("T")
R = TypeVar("R")


def map_shards(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    concurrency: int | None = None,
    gpus_per_task: float = 0.0,
    on_done: Callable[[R], None] | None = None,
) -> list[R]:
    """Apply a picklable `fn` to every item, one task on one core each, `concurrency` at a time (None: as many as fit).

    `on_done` sees results as they arrive, in any order; the returned list has the items' order. Tasks of a lost machine
    run again, so `fn` must be safe to repeat. The first exception that `fn` raises is raised here, as it was.
    """
    if not items:
        return []
    ensure_ray()
    import ray
    from ray import cloudpickle

    _quiet(ray.data.DataContext.get_current())
    # Items travel pickled: they are records, not columns, and Arrow would try to take them apart.
    rows = [{"position": position, "item": cloudpickle.dumps(item)} for position, item in enumerate(items)]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Apply(fn),
        num_cpus=1,
        num_gpus=gpus_per_task or None,
        compute=ray.data.TaskPoolStrategy(size=min(concurrency, len(items)) if concurrency else None),
    )
    results: dict[int, R] = {}
    for row in dataset.iter_rows():
        ok, value = pickle.loads(row["outcome"])
        if not ok:
            raise value
        results[row["position"]] = value
        if on_done:
            on_done(value)
    return [results[position] for position in range(len(items))]


def map_on_gpus(fn: Callable[[T], R], items: Sequence[T], **how: Any) -> list[R]:
    """`map_shards` for networks: every task has a GPU of its own where the session has GPUs at all."""
    ensure_ray()
    import ray

    return map_shards(fn, items, gpus_per_task=1.0 if ray.cluster_resources().get("GPU") else 0.0, **how)


def _quiet(context: Any) -> None:
    """Progress is the caller's business: Ray Data's bars and its lines on the console go, its log file stays."""
    context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


class _Apply:
    """Runs `fn` on one pickled row; carries an exception back as a value, so that it arrives as it was raised."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self._fn = fn

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import cv2
        from ray import cloudpickle

        cv2.setNumThreads(1)  # a task has one core, and OpenCV's threads do not heed OMP_NUM_THREADS
        try:
            outcome = (True, self._fn(pickle.loads(row["item"])))
        except Exception as error:
            outcome = (False, error)
        return {"position": row["position"], "outcome": cloudpickle.dumps(outcome)}
