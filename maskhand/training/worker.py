"""The interface between a training loop and its launcher: rank, metric reports, checkpoint store, export folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

EXPORT = "export"
"""Folder inside the last checkpoint with the result of the run: a tokenizer, or a model bundle."""

Report = Callable[[int, Mapping[str, float]], None]
"""`report(step, metrics)` after `step` finished steps; the loops call it on rank 0 only."""


class CheckpointStore(Protocol):
    """A store of checkpoints; all ranks must call both methods together."""

    def save(self, step: int, write: Callable[[Path], None], error_mm: float | None = None) -> None:
        """Store what `write(folder)` writes, merged over ranks; atomic, possibly completed only by the next call.

        error_mm: validation error of the weights at this step, millimeters; None: they were not validated.
        """

    def latest(self) -> AbstractContextManager[Path | None]:
        """The folder of the newest complete checkpoint, merged over ranks; None if there is none."""


@dataclass(frozen=True)
class WorkerContext:
    """The context of one of `world` data-parallel processes."""

    rank: int
    world: int
    report: Report
    store: CheckpointStore
    keep: Path | None = None
    """Folder for the batches at which a training had to stop; None: they are not saved."""
    leaving: Callable[[], bool] = lambda: False
    """Whether a node is about to be preempted. All ranks call it together and get the same answer."""


def no_report(step: int, metrics: Mapping[str, float]) -> None:
    """The `Report` of every rank but the first."""
