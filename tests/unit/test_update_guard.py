"""Steps that are not finite, ranks that do not come, data that ends: what a training does, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from maskhand.batch import HandBatch
from maskhand.config import OptimConfig
from maskhand.hand.layer import ManoLayer
from maskhand.training import rank_watch, transformer_loop
from maskhand.training.rank_watch import RankWatch, StuckRankError
from maskhand.training.trainer_state import NoDataError, TrainerState
from maskhand.training.update_guard import NotFiniteError, UpdateGuard
from maskhand.training.worker import WorkerContext
from support.training_fakes import FolderStore, batches, new_tokenizer, small_recipe

Rows = dict[int, dict[str, float]]


def _train(folder: Path, bad: range, *overrides: str) -> Rows:
    """Twelve steps, of which some (0-based) have a label that is not a number; reported after each."""
    recipe = small_recipe("training.optim.log_every=1", *overrides)
    rows: Rows = {}

    def stream(first: int) -> Iterator[HandBatch]:
        for step, batch in enumerate(batches(recipe)(first), first):
            yield replace(batch, betas=batch.betas * torch.nan) if step in bad else batch

    def report(step: int, metrics: Mapping[str, float]) -> None:
        rows[step] = dict(metrics)

    worker = WorkerContext(0, 1, report, FolderStore(folder), folder / "stopped")
    transformer_loop.train(recipe, new_tokenizer(recipe), ManoLayer.from_default(), stream, worker)
    return rows


@pytest.mark.parametrize("stage", [0, 1])
def test_a_step_that_is_not_finite_changes_no_weight(stage: int, tmp_path: Path) -> None:
    rows = _train(tmp_path, range(3, 5), f"engine.zero_stage={stage}", "training.optim.steps=6")
    assert sorted(rows) == [1, 2, 3, 4, 5, 6]
    assert [step for step, row in rows.items() if row.get("train/skipped_steps") == 1.0] == [4, 5]
    assert [step for step, row in rows.items() if row.get("train/loss", torch.nan) > 0] == [1, 2, 3, 6]
    with pytest.raises(
        NotFiniteError, match=r"step 5: .* 2 steps in a row \(engine\.max_skipped=1; .* was nan\)"
    ) as told:
        _train(tmp_path / "more", range(3, 9), f"engine.zero_stage={stage}", "engine.max_skipped=1")
    path = tmp_path / "more" / "stopped" / "step-000000005-rank-00000.pt"
    assert str(path) in str(told.value) and not told.value.retryable
    batch, slots, step = torch.load(path, weights_only=True)["inputs"]
    assert batch["betas"].isnan().all() and batch["pixels"].dtype == torch.uint8
    assert slots.tolist() == list(range(8)) and step == 4


def test_the_scale_of_the_loss_halves_and_doubles_and_is_kept() -> None:
    loss = torch.zeros(())
    guard = UpdateGuard(5, scaled=True, rank=0, keep=None)
    first = guard.scale
    for step, applied in enumerate([False, False, True, *([True] * 1999)]):
        guard.after_step(step, applied, loss, ())
        assert guard.skipped is not applied
    assert guard.scale == first / 4 * 2
    other = UpdateGuard(5, scaled=True, rank=0, keep=None)
    other.load(guard.state())
    assert other.state() == guard.state()
    whole = UpdateGuard(5, scaled=False, rank=0, keep=None)
    whole.load(guard.state())
    assert whole.scale == 1.0, "a run that goes on in fp32"
    for step in range(5):
        guard.after_step(step, False, loss, ())
    with pytest.raises(NotFiniteError, match="6 steps in a row"):
        guard.after_step(5, False, loss, ())


def test_a_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = distributed.HashStore()
    monkeypatch.setattr(rank_watch.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    watches = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        watches.append(RankWatch())
    gloo = "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 60000ms for recv operation to complete"
    watches[1].note(36, "waiting for the data")
    with (
        pytest.raises(
            StuckRankError, match=r"rank 0 waited 0 s for the others in step 37: rank 2 has not begun"
        ) as told,
        watches[0].waiting(36),
    ):
        raise RuntimeError(gloo)
    assert told.value.retryable
    watches[2].note(36, "computing")
    watches[1].note(35, "waiting for the data")
    with (
        pytest.raises(StuckRankError, match="rank 1 is waiting for the data of step 36 since 0 s"),
        watches[0].waiting(36),
    ):
        raise RuntimeError(gloo)
    with pytest.raises(RuntimeError, match="size mismatch"), watches[0].waiting(36):
        raise RuntimeError("size mismatch for encoder.weight")


class _Engine:
    """What `TrainerState` needs of an engine, without a model."""

    device, skipped = torch.device("cpu"), False

    def __init__(self) -> None:
        self.watch = SimpleNamespace(note=lambda step, doing: None)
        self.saved: list[int] = []

    def lr(self) -> float:
        return 0.0

    grad_norm = lr

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    mean = sum

    def save(self, folder: Path, state: Mapping[str, int]) -> None:
        self.saved.append(state["step"])


def _state(folder: Path, rows: Rows, leaving: Callable[[], bool]) -> tuple[TrainerState, _Engine]:
    optim = OptimConfig(steps=100, batch=4, lr=1.0, log_every=5, checkpoint_every=40)
    worker = WorkerContext(0, 1, lambda step, row: rows.update({step: dict(row)}), FolderStore(folder), leaving=leaving)
    engine = _Engine()
    return TrainerState(engine, worker, optim, lambda folder, steps: None), engine  # type: ignore[arg-type]


def test_a_node_that_is_taken_away_is_saved_once_and_waits_are_reported(tmp_path: Path) -> None:
    rows: Rows = {}
    asked: list[int] = []
    state, engine = _state(tmp_path, rows, lambda: len(rows) >= 3 or bool(asked.append(len(rows))))
    stream = state.timed(iter(range(30)))
    for step, _ in zip(range(1, 31), stream, strict=False):
        state.after_step(step, {"loss": torch.tensor(1.0)})
    assert engine.saved == [15], "at the report after the notice, and not at each one since"
    assert asked == [1, 2], "asked at reports alone, on all ranks together"
    assert 0 <= rows[5]["time/rank0_data_wait_s"] <= rows[5]["time/rank0_step_s"]
    assert not any(name.startswith("time/") or "per_s" in name for name in state.metrics)
    with pytest.raises(NoDataError, match="rank 0 of 1: its data ended before step 31 of 100"):
        next(stream)
