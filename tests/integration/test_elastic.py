"""Two ranks, one, and two again, without Ray: ZeRO's stages, offload, parts of a batch and precisions train alike."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from maskhand.hand.layer import ManoLayer
from maskhand.training import transformer_loop
from maskhand.training.worker import WorkerContext
from support import training_fakes as fakes

pytestmark = pytest.mark.slow

STEPS = 6
Losses = dict[int, float]


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


def train(run: Run, rank: int = 0, world: int = 1) -> Losses:
    """The losses by step."""
    optim = "{steps: 6, batch: 8, lr: 2.0e-3, weight_decay: 1.0e-2, log_every: 1, checkpoint_every: 2}"
    recipe = fakes.small_recipe(f"training.optim={optim}", "engine.max_skipped=2", *run.overrides)
    losses: Losses = {}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        losses[step] = metrics.get("train/loss", math.nan)

    worker = WorkerContext(rank, world, report, Store(Path(run.folder), run.stop), Path(run.folder) / "kept")
    try:
        tokenizer, stream = fakes.new_tokenizer(recipe), fakes.batches(recipe, rank, world)
        transformer_loop.train(recipe, tokenizer, ManoLayer.from_default(), stream, worker)
    except _Stopped:
        pass
    return losses


def _rank(rank: int, runs: tuple[Run, ...], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=300))
    losses = [train(run, rank, 2) for run in runs]
    if rank == 0:
        torch.save(losses, f"{folder}/losses.pt")
    distributed.destroy_process_group()


def on_two_ranks(runs: tuple[Run, ...], folder: Path) -> list[Losses]:
    folder.mkdir()
    multiprocessing.spawn(_rank, (runs, str(folder)), nprocs=2)
    return torch.load(folder / "losses.pt", weights_only=True)


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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """One rank, which was never stopped."""
    return train(Run(str(tmp_path_factory.mktemp("alone"))))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Losses], Path]]:
    """Each way of `ALIKE` on two ranks, and runs of two steps."""
    root = tmp_path_factory.mktemp("pairs")
    whole = [Run(str(root / name), overrides) for name, overrides in ALIKE.items()]
    begun = [Run(str(root / "begun"), ("engine.zero_stage=2",), stop=2)]
    losses = on_two_ranks((*whole, *begun), root / "processes")
    yield dict(zip((*ALIKE, "begun"), losses, strict=True)), root


@pytest.mark.parametrize("way", ALIKE)
def test_every_way_of_sharing_out_a_step_gives_the_same_losses(way: str, alone: Losses, pairs) -> None:
    losses, _ = pairs
    assert sorted(alone) == list(range(1, STEPS + 1))
    assert losses[way] == pytest.approx(alone, rel=1e-3 if "16" in way else 1e-4)


def test_two_ranks_one_and_two_again_go_on_with_one_run(alone: Losses, pairs, tmp_path: Path) -> None:
    losses, root = pairs
    run = tmp_path / "run"
    shutil.copytree(root / "begun", run)
    first = losses["begun"]
    second = train(Run(str(run), ("engine.zero_stage=0",), stop=4))
    (third,) = on_two_ranks((Run(str(run), ("engine.zero_stage=3",)),), tmp_path / "processes")
    assert [sorted(part) for part in (first, second, third)] == [[1, 2], [3, 4], [5, 6]]
    assert first | second | third == pytest.approx(alone, rel=1e-4)
