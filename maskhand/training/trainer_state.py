"""The state of a training loop between two steps: running means of the metrics, checkpoints, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from maskhand.config import OptimConfig
from maskhand.errors import MaskhandError
from maskhand.training.engine import Engine
from maskhand.training.exported_weights import BEST_BY, ExportedWeights
from maskhand.training.worker import EXPORT, WorkerContext

T = TypeVar("T")


class NoDataError(MaskhandError, RuntimeError):
    """A rank's stream of batches ended."""


class TrainerState:
    """The part of a run's state that is not in the engine: the step, the running means, the last reported metrics.

    `export(folder, steps)` is called on all ranks with the last checkpoint, or with every one (`export_every`).
    There is no generator state: all random draws are a function of seed, step and slot.
    """

    def __init__(
        self,
        engine: Engine,
        worker: WorkerContext,
        optim: OptimConfig,
        export: Callable[[Path, int], None],
        export_every: bool = False,
        weights: ExportedWeights | None = None,
    ) -> None:
        self._engine, self._worker, self._optim, self._export = engine, worker, optim, export
        self._export_every, self._weights = export_every, weights
        self._names: list[str] = []
        self._sums = torch.zeros(0)
        self._count = 0
        self._done, self._skipped = 0, 0
        self._wait_s = 0.0
        self._reported_at_s, self._reported_step = time.monotonic(), 0
        self._left = False
        self.metrics: dict[str, float] = {}
        """The last reported metrics, without timings, so that equal trainings have equal metrics and exports."""

    def resume(self) -> int:
        """Load the newest checkpoint, if any; returns the number of finished steps."""
        with self._worker.store.latest() as folder:
            state = {} if folder is None else self._engine.load(folder)
        self._names, self._count = state.get("names", []), state.get("count", 0)
        self._sums = torch.tensor(state.get("sums", []), dtype=torch.float64, device=self._engine.device)
        self.metrics = state.get("metrics", {})
        if self._weights is not None and state:
            self._weights.load(state["weights"])
        self._skipped = state.get("skipped", 0)
        self._done = self._reported_step = state.get("step", 0)
        self._reported_at_s = time.monotonic()
        return self._done

    def timed(self, stream: Iterator[T]) -> Iterator[T]:
        """The same batches, with this rank's waiting time measured for reports. Raises NoDataError if they end."""
        while True:
            self._engine.watch.note(self._done, "waiting for the data")
            began_s = time.monotonic()
            try:
                batch = next(stream)
            except StopIteration:
                raise NoDataError(
                    f"rank {self._worker.rank} of {self._worker.world}: its data ended before step {self._done + 1} of "
                    f"{self._optim.steps}; are the shards of the training sets still there?"
                ) from None
            self._wait_s += time.monotonic() - began_s
            yield batch

    def after_step(self, done: int, stats: Mapping[str, Tensor]) -> None:
        """Add the stats (0-d tensors) of step `done` (1-based) to the means; validate, report and save when due."""
        self._done = done
        if self._engine.skipped:
            self._skipped += 1
        else:
            self._names = list(stats)
            values = torch.stack([value.double() for value in stats.values()])
            self._sums = values if self._count == 0 else self._sums + values
            self._count += 1
        validated = {} if self._weights is None else self._weights.after_step(done)
        last = done == self._optim.steps
        due = last or done % self._optim.log_every == 0
        trained = self._means() if due else {}
        if trained or validated:
            self.metrics = (trained or self.metrics) | validated
            timed = self._timed(done) if trained else {}
            if self._worker.rank == 0:
                self._worker.report(done, trained | timed | validated)
        leaves = due and self._worker.leaving() and not self._left
        self._left = self._left or leaves
        if last or leaves or done % self._optim.checkpoint_every == 0:
            self._save(done, last, validated.get(BEST_BY))

    def _means(self) -> dict[str, float]:
        """The metrics of the steps since the last call."""
        found: dict[str, float] = {}
        if self._count:
            means = (self._engine.mean(self._sums) / self._count).tolist()
            found = {f"train/{name}": value for name, value in zip(self._names, means, strict=True)}
            found["train/lr"] = self._engine.lr()
            if not self._engine.skipped:
                found["train/grad_norm"] = self._engine.grad_norm()
        if self._skipped:
            found["train/skipped_steps"] = float(self._skipped)
        self._count = self._skipped = 0
        return found

    def _timed(self, done: int) -> dict[str, float]:
        """The timings since the last call: throughput, and each rank's mean time per step and the part of it spent
        waiting for data."""
        now_s = time.monotonic() - (0.0 if self._weights is None else self._weights.validation_s)
        steps, passed_s = done - self._reported_step, now_s - self._reported_at_s
        ranks = torch.zeros(self._worker.world, 2, dtype=torch.float64)
        ranks[self._worker.rank] = torch.tensor([passed_s, self._wait_s]) / max(1, steps)
        self._wait_s, self._reported_at_s, self._reported_step = 0.0, now_s, done
        metrics = {"train/samples_per_s": steps * self._optim.batch / max(1e-9, passed_s)}
        for rank, (step_s, wait_s) in enumerate(self._engine.sum(ranks.to(self._engine.device)).tolist()):
            metrics |= {f"time/rank{rank}_step_s": step_s, f"time/rank{rank}_data_wait_s": wait_s}
        return metrics

    def _save(self, done: int, last: bool, error_mm: float | None) -> None:
        state = {
            "step": done,
            "names": self._names,
            "sums": self._engine.mean(self._sums).tolist(),
            "count": self._count,
            "skipped": self._skipped,
            "metrics": self.metrics,
        }
        if self._weights is not None:
            state["weights"] = self._weights.state()

        def write(folder: Path) -> None:
            self._engine.save(folder, state)
            if last or self._export_every:
                self._export(folder / EXPORT, done)

        self._worker.store.save(done, write, error_mm)
