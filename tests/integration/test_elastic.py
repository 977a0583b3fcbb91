"""Two ranks, one, and two again, without Ray: ZeRO's stages, offload, parts of a batch and precisions train alike.

So do the averaged weights, their validations, and what is exported of them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from maskhand.hand.layer import ManoLayer
from maskhand.models.bundle import ModelBundle
from maskhand.training import transformer_loop
from maskhand.training.exported_weights import BEST_BY
from maskhand.training.worker import WorkerContext
from support import training_fakes as fakes

pytestmark = pytest.mark.slow

STEPS, LOSS = 6, "train/loss"
Curves = dict[tuple[str, int], float]
"""Metric and step -> value, of losses and validations."""


@dataclass(frozen=True)
class Run:
    """A training of the transformer, from the checkpoint in its folder on if there is one."""

    folder: str
    overrides: tuple[str, ...] = ()
    stop: int = STEPS
    """It is ended after the checkpoint of this step."""


class _Stopped(Exception):
    pass


class Store(fakes.FolderStore):
    """Checkpoints of some ranks in one folder; the run ends after that of step `stop`."""

    def __init__(self, root: Path, stop: int) -> None:
        super().__init__(root)
        self._stop = stop

    def save(self, step: int, write: Callable[[Path], None], error_mm: float | None = None) -> None:
        super().save(step, write)
        if distributed.get_world_size() > 1:
            distributed.barrier()
        if step == self._stop < STEPS:
            raise _Stopped


def train(run: Run, rank: int = 0, world: int = 1) -> Curves:
    optim = "{steps: 6, batch: 8, lr: 2.0e-3, weight_decay: 1.0e-2, log_every: 1, checkpoint_every: 2}"
    weights = ("training.ema_decay=0.8", "training.validate_every=3")
    recipe = fakes.small_recipe(f"training.optim={optim}", *weights, "engine.max_skipped=2", *run.overrides)
    curves: Curves = {}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        curves.update({(name, step): metrics[name] for name in (LOSS, BEST_BY) if name in metrics})

    worker = WorkerContext(rank, world, report, Store(Path(run.folder), run.stop), Path(run.folder) / "kept")
    hands = fakes.held_out_hands(recipe, rank, world)
    try:
        tokenizer, stream = fakes.new_tokenizer(recipe), fakes.batches(recipe, rank, world)
        transformer_loop.train(recipe, tokenizer, ManoLayer.from_default(), stream, worker, held_out=hands)
    except _Stopped:
        pass
    return curves


def steps_of(curves: Curves, metric: str) -> list[int]:
    return sorted(step for name, step in curves if name == metric)


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.load(folder / f"step-{STEPS:09d}" / "export").model.state_dict()


def _rank(rank: int, runs: tuple[Run, ...], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=300))
    curves = [train(run, rank, 2) for run in runs]
    if rank == 0:
        torch.save(curves, f"{folder}/curves.pt")
    distributed.destroy_process_group()


def on_two_ranks(runs: tuple[Run, ...], folder: Path) -> list[Curves]:
    folder.mkdir()
    multiprocessing.spawn(_rank, (runs, str(folder)), nprocs=2)
    return torch.load(folder / "curves.pt", weights_only=True)


ALIKE = {
    "stage 0": ("engine.zero_stage=0",),
    "stage 1": (),
    "stage 2, parts": ("engine.zero_stage=2", "engine.micro_batch=1"),
    "stage 3": ("engine.zero_stage=3",),
    "stage 1, offload, parts": ("engine.offload=optimizer", "engine.micro_batch=2"),
    "stage 3, offload": ("engine.zero_stage=3", "engine.offload=all"),
    "stage 0, parts": ("engine.zero_stage=0", "engine.micro_batch=2"),
    "stage 1, fp16": ("engine.precision=fp16",),
    "stage 0, fp16": ("engine.precision=fp16", "engine.zero_stage=0"),
    "stage 2, bf16": ("engine.precision=bf16", "engine.gradients=fp32", "engine.zero_stage=2"),
}
"""How two ranks share out a step, and its precision; gradients are sent in fp32 in all of them."""
BEGUN = ("begun with stage 2", "begun with stage 3")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Curves, Path]:
    """One rank, which was never stopped."""
    folder = tmp_path_factory.mktemp("alone")
    return train(Run(str(folder))), folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Curves], Path]:
    """Each way of `ALIKE` on two ranks, and runs of two steps."""
    root = tmp_path_factory.mktemp("pairs")
    whole = [Run(str(root / name), overrides) for name, overrides in ALIKE.items()]
    begun = [Run(str(root / name), (f"engine.zero_stage={name[-1]}",), stop=2) for name in BEGUN]
    curves = on_two_ranks((*whole, *begun), root / "processes")
    return dict(zip((*ALIKE, *BEGUN), curves, strict=True)), root


@pytest.mark.parametrize("way", ALIKE)
def test_every_way_of_sharing_out_a_step_trains_alike(way: str, alone: tuple[Curves, Path], pairs) -> None:
    (expected, folder), (curves, root) = alone, pairs
    assert steps_of(expected, LOSS) == list(range(1, STEPS + 1)) and steps_of(expected, BEST_BY) == [3, 6]
    half = "16" in way
    assert curves[way] == pytest.approx(expected, rel=1e-3 if half else 1e-4)
    ours, theirs = exported(root / way), exported(folder)
    assert ours.keys() == theirs.keys()
    if not half:  # the sign of a small gradient is rounding, and AdamW's first steps are of one size
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("begun", BEGUN)
def test_two_ranks_one_and_two_again_go_on_with_one_run(
    begun: str, alone: tuple[Curves, Path], pairs, tmp_path: Path
) -> None:
    (expected, folder), (curves, root) = alone, pairs
    run = tmp_path / "run"
    shutil.copytree(root / begun, run)
    first = curves[begun]
    second = train(Run(str(run), ("engine.zero_stage=0",), stop=4))
    (third,) = on_two_ranks((Run(str(run), ("engine.zero_stage=3",)),), tmp_path / "processes")
    assert [steps_of(part, LOSS) for part in (first, second, third)] == [[1, 2], [3, 4], [5, 6]]
    assert first | second | third == pytest.approx(expected, rel=1e-4)
    for name, value in exported(run).items():
        torch.testing.assert_close(value, exported(folder)[name], rtol=0, atol=1e-4)
