"""What runs inside a Ray Train worker: the training loop, its checkpoint store and its reports."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import ray.train
import torch
from ray.train import Checkpoint

from maskhand.cluster.run_folder import ABOUT, KEPT, METRICS, STARTS, truncate_incomplete_line
from maskhand.training.worker import Report, WorkerContext, no_report

Loop = Callable[[Any, WorkerContext], dict[str, float]]
"""`loop(job, worker)` trains and returns the last metrics; its last checkpoint holds a folder `export/`."""


def run_worker(
    loop: Loop, reporter: Report | None, run_dir: Path, threads: int, config: dict[str, Any]
) -> dict[str, float]:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    leaving = _node_leaves if os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") == "1" else _never
    worker = WorkerContext(rank, world, no_report, _RayStore(rank, world), run_dir / KEPT, leaving)
    if rank != 0:
        return loop(config["job"], worker)
    with (run_dir / STARTS).open("a") as starts:
        starts.write(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
    try:
        return loop(config["job"], replace(worker, report=MetricsFile(run_dir / METRICS, reporter)))
    finally:
        if (close := getattr(reporter, "close", None)) is not None:
            close()


def _node_leaves() -> bool:
    """Has a node of these workers been told that it is taken away? All ranks ask together."""
    return ray.train.get_preemption_info() is not None


def _never() -> bool:
    return False


class _RayStore:
    """A `CheckpointStore` on `ray.train.report`, which merges the folders of all ranks atomically."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._world = rank, world

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="maskhand-checkpoint-") as folder:
            write(Path(folder))
            if self._rank == 0:
                (Path(folder) / ABOUT).write_text(json.dumps({"step": step, "workers": self._world}))
            ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder))

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)


class MetricsFile:
    """A `Report` that appends to the metrics file of a run, then calls `reporter`."""

    def __init__(self, path: Path, reporter: Report | None) -> None:
        self._path, self._reporter = path, reporter
        truncate_incomplete_line(path)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._path.open("a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._reporter is not None:
            self._reporter(step, metrics)
