"""What a training loop is given by whoever runs it: its rank, a voice and a place for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Report = Callable[[int, Mapping[str, float]], None]
"""`report(step, metrics)` after `step` finished steps; the loops call it on rank 0 only."""


class CheckpointStore(Protocol):
    """Keeps checkpoints; every rank calls both methods, in step."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write(folder)` puts into a folder; the folders of all ranks become one. All or nothing."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """The newest kept folder, merged over ranks; None when there is none."""


@dataclass(frozen=True)
class Worker:
    """One of `world` equal processes that train together."""

    rank: int
    world: int
    report: Report
    store: CheckpointStore


def silent(step: int, metrics: Mapping[str, float]) -> None:
    """The report of every rank but the first."""
