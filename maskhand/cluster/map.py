"""Parallel map over shards with Ray Data; results are in the order of the items."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from maskhand.carried import CarriedFolder
from maskhand.cluster.driver_state import DriverState
from maskhand.cluster.session import ensure_ray
from maskhand.machine import reuse_memory

T = TypeVar("T")
R = TypeVar("R")


def map_shards(
    fn: Callable[[T], R],
    items: Sequence[T],
    *,
    concurrency: int | None = None,
    gpus_per_task: float = 0.0,
    carried: Sequence[CarriedFolder] = (),
    on_done: Callable[[R], None] | None = None,
) -> list[R]:
    """Apply a picklable `fn` to every item, in one single-core task each, `concurrency` at a time (None: all that fit).

    Tasks get this process's settings and hand models (`DriverState`), and the files of `carried`. `on_done` gets
    results as they arrive, in any order; the returned list is in the order of the items. Tasks of a lost machine run
    again, so `fn` must be idempotent. The first exception that `fn` raises is raised here unchanged.
    """
    if not items:
        return []
    ensure_ray()
    import ray
    from ray import cloudpickle

    _quiet(ray.data.DataContext.get_current())
    # Items are pickled, because they are records that Arrow would convert to columns.
    rows = [{"position": position, "item": cloudpickle.dumps(item)} for position, item in enumerate(items)]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Apply(fn, DriverState.of_this_process(*carried)),
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


def map_on_gpus(fn: Callable[[T], R], items: Sequence[T], **options: Any) -> list[R]:
    """`map_shards` for networks: one GPU per task if the session has GPUs."""
    ensure_ray()
    import ray

    return map_shards(fn, items, gpus_per_task=1.0 if ray.cluster_resources().get("GPU") else 0.0, **options)


def _quiet(context: Any) -> None:
    """Disable Ray Data's progress bars and console log, as the caller reports progress; its log file is kept."""
    context.enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


class _Apply:
    """Runs `fn` on one pickled row; returns an exception as a value, so that it is not wrapped."""

    def __init__(self, fn: Callable[[Any], Any], driver: DriverState) -> None:
        self._fn, self._driver = fn, driver

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import cv2
        from ray import cloudpickle

        reuse_memory()
        cv2.setNumThreads(1)  # a task has one core, and OpenCV ignores OMP_NUM_THREADS
        try:
            with self._driver.taken_over():
                outcome = (True, self._fn(pickle.loads(row["item"])))
        except Exception as error:
            outcome = (False, error)
        return {"position": row["position"], "outcome": cloudpickle.dumps(outcome)}
