"""Averaged weights, and validation in the training loop: what is exported, and that neither disturbs the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from maskhand.config import ConfigError, Recipe
from maskhand.evaluation.held_out import HeldOutHands
from maskhand.hand.layer import ManoLayer
from maskhand.models.bundle import ModelBundle
from maskhand.training import transformer_loop
from maskhand.training.exported_weights import BEST_BY, ValidationError, WeightAverage, trained_tensors
from maskhand.training.worker import WorkerContext
from support.training_fakes import FolderStore, batches, held_out_hands, new_tokenizer, small_recipe, untimed

Rows = dict[int, dict[str, float]]


class _Killed(Exception):
    pass


class Scripted(HeldOutHands):
    """Validations with given results."""

    def __init__(self, *errors_mm: float) -> None:
        super().__init__(())
        object.__setattr__(self, "_left", iter(errors_mm))  # the record is frozen

    def sums(self, model: nn.Module) -> torch.Tensor:
        assert not model.training
        error_m = next(self._left) / 1e3  # type: ignore[attr-defined]
        return torch.tensor([1.0, error_m, 0.0, 0.0], dtype=torch.float64)[:, None].expand(4, 22)


def _train(recipe: Recipe, folder: Path, hands: HeldOutHands | None = None, die_after: int | None = None) -> Rows:
    rows: Rows = {}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        rows[step] = dict(metrics)
        if die_after is not None and step >= die_after:
            raise _Killed

    mano, worker = ManoLayer.from_default(), WorkerContext(0, 1, report, FolderStore(folder))
    transformer_loop.train(recipe, new_tokenizer(recipe), mano, batches(recipe), worker, held_out=hands)
    return rows


def _exported(folder: Path, step: int = 12) -> tuple[dict[str, Any], Mapping[str, Any]]:
    bundle = ModelBundle.load(folder / f"step-{step:09d}" / "export")
    return bundle.model.state_dict(), bundle.metadata


def test_the_average_is_its_closed_form_and_of_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).requires_grad_(False))
    model[0].register_buffer("count", torch.zeros(1, dtype=torch.int64))
    model[0].register_buffer("constant", torch.zeros(1), persistent=False)
    tensors = trained_tensors(model)
    assert set(tensors) == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    average = WeightAverage(tensors, decay=0.6)
    seen = {name: [tensor.detach().double().numpy().copy()] for name, tensor in tensors.items()}
    for step in range(30):
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.add_(torch.randn_like(tensor))
        for name, tensor in tensors.items():
            seen[name].append(tensor.detach().double().numpy().copy())
        average.update(step)
    decays = np.minimum(0.6, (1 + np.arange(30)) / (10 + np.arange(30)))
    assert decays[0] == 0.1 and decays[-1] == 0.6
    # weight number k is kept with (1 - its decay) times the decays of all later steps
    shares = np.concatenate(([1.0], 1 - decays)) * np.append(np.cumprod(decays[::-1])[::-1], 1.0)
    assert shares.sum() == pytest.approx(1.0)
    for name, values in seen.items():
        expected = np.tensordot(shares, np.stack(values), 1)
        np.testing.assert_allclose(average.values[name].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_neither_averaging_nor_validation_disturbs_the_training(tmp_path: Path) -> None:
    plain = _train(small_recipe("model.dropout=0.1"), tmp_path / "plain")
    recipe = small_recipe("model.dropout=0.1", "training.ema_decay=0.9", "training.validate_every=3")
    rows = _train(recipe, tmp_path / "both", held_out_hands(recipe))
    assert sorted(step for step, row in rows.items() if BEST_BY in row) == [3, 6, 9, 12]
    assert rows[3].keys() == {BEST_BY, "val/pa_mpvpe_mm", "val/best_pa_mpjpe_mm", "val/best_step"}
    trained = {step: {k: v for k, v in row.items() if k.startswith("train/")} for step, row in rows.items()}
    assert untimed({step: row for step, row in trained.items() if row}) == untimed(plain), "bit for bit"
    weights, metadata = _exported(tmp_path / "plain")
    averaged, told = _exported(tmp_path / "both")
    assert "exported_weights" not in metadata and told["exported_weights"]["ema_decay"] == 0.9
    moved = {name for name, value in weights.items() if not torch.equal(value, averaged[name])}
    assert moved and not any(name.startswith("tokenizer.") for name in moved)
    assert (
        told["exported_weights"]["validated_step"] == min((row[BEST_BY], s) for s, row in rows.items() if s % 3 == 0)[1]
    )


def test_a_killed_run_resumes_with_its_average_and_its_best(tmp_path: Path) -> None:
    recipe = small_recipe("training.ema_decay=0.9", "training.validate_every=3", "training.optim.schedule=constant")
    whole = _train(recipe, tmp_path / "whole", Scripted(5.0, 3.0, 4.0, 6.0))
    with pytest.raises(_Killed):
        _train(recipe, tmp_path / "cut", Scripted(5.0, 3.0, 4.0), die_after=9)
    resumed = _train(recipe, tmp_path / "cut", Scripted(4.0, 6.0))  # from step 8 on
    assert untimed(resumed) == {step: row for step, row in untimed(whole).items() if step >= 9}
    assert whole[12]["val/best_step"] == 6 and whole[12]["val/best_pa_mpjpe_mm"] == pytest.approx(3.0)
    ours, about = _exported(tmp_path / "cut")
    theirs, _ = _exported(tmp_path / "whole")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert about["exported_weights"] == {"ema_decay": 0.9, "validated_step": 6, BEST_BY: pytest.approx(3.0)}

    # what was best is what a run of six steps ends with
    short = small_recipe("training.ema_decay=0.9", "training.optim.steps=6", "training.optim.schedule=constant")
    _train(short, tmp_path / "short")
    ended, _ = _exported(tmp_path / "short", 6)
    assert all(torch.equal(value, ended[name]) for name, value in ours.items())


def test_a_validation_without_hands_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.validate_every needs held-out hands"):
        small_recipe("training.validate_every=3", "data.held_out=0.0")
    recipe = small_recipe("training.validate_every=3")
    with pytest.raises(ValueError, match="no held-out hands were given"):
        _train(recipe, tmp_path / "none")
    with pytest.raises(ValidationError, match=r"raise data\.held_out"):
        _train(recipe, tmp_path / "empty", HeldOutHands(()))
