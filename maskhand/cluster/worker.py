"""The function that a Ray Train worker runs: the training loop with its checkpoint store and reports."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import ray.train
import torch

from maskhand.cluster.journal import Journal
from maskhand.cluster.rank_store import RankStore, Seat
from maskhand.cluster.run_folder import METRICS, NOTES, STARTS
from maskhand.config import EngineConfig
from maskhand.machine import reuse_memory
from maskhand.training.worker import Report, WorkerContext, no_report

Loop = Callable[[Any, WorkerContext], dict[str, float]]
"""`loop(job, worker)` trains and returns the last metrics; its last checkpoint contains a folder `export/`."""


@dataclass(frozen=True)
class RunPlaces:
    """The locations to which the workers of a run write; picklable."""

    checkpoints: str
    """Folder, or `s3://...`."""
    kept: Path
    """Folder on each worker's machine, see `WorkerContext.keep`."""
    journal: Journal
    claim: str | None = None
    """The driver's claim on `checkpoints`, see `lease`."""


def run_worker(
    loop: Loop, reporter: Report | None, places: RunPlaces, engine: EngineConfig, config: dict[str, Any]
) -> dict[str, float]:
    reuse_memory()
    torch.set_num_threads(engine.threads_per_worker)
    cv2.setNumThreads(engine.threads_per_worker)
    context = ray.train.get_context()
    rank, world, journal = context.get_world_rank(), context.get_world_size(), places.journal
    seat = Seat(rank, world, context.get_node_rank(), context.get_local_rank())
    leaving = _node_leaves if os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER") == "1" else _never
    report: Report = no_report
    if rank == 0:
        journal.append(STARTS, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        report = MetricsFile(journal, reporter)
    try:
        note = functools.partial(journal.append, NOTES)
        with RankStore(places.checkpoints, engine, note, seat, claim=places.claim) as store:
            return loop(config["job"], WorkerContext(rank, world, report, store, places.kept, leaving))
    finally:
        if (close := getattr(reporter, "close", None)) is not None and (lost := close()) is not None:
            journal.append(NOTES, lost)
        journal.close()


def _node_leaves() -> bool:
    """Whether preemption of a node of these workers was announced. All ranks call it together."""
    return ray.train.get_preemption_info() is not None


def _never() -> bool:
    return False


class MetricsFile:
    """A `Report` that appends to the metrics file of a run, then calls `reporter`."""

    def __init__(self, journal: Journal, reporter: Report | None) -> None:
        self._journal, self._reporter = journal, reporter

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self._journal.append(METRICS, json.dumps({"step": step, **metrics}))
        if self._reporter is not None:
            self._reporter(step, metrics)
