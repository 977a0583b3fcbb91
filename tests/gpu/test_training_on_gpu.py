"""The DeepSpeed engine on a GPU: nccl, ZeRO, both loops, and the figures that the benchmarks report."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from maskhand.hand.layer import ManoLayer
from maskhand.training import tokenizer_loop, transformer_loop
from maskhand.training.worker import WorkerContext
from support import training_fakes as fakes

pytestmark = pytest.mark.gpu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _train(_: int, kind: str, overrides: tuple[str, ...], folder: str) -> None:
    """In a process of its own: DeepSpeed settles once for all on the device it runs on."""
    recipe, losses = fakes.small_recipe(*overrides), {}
    worker = WorkerContext(0, 1, lambda step, row: losses.update({step: row["train/loss"]}), fakes.FolderStore(folder))
    mano = ManoLayer.from_default()
    if kind == "tokenizer":
        tokenizer_loop.train(recipe, mano, fakes.poses(recipe), worker)
    else:
        transformer_loop.train(recipe, fakes.new_tokenizer(recipe), mano, fakes.batches(recipe), worker)
    torch.save(losses, Path(folder) / "losses.pt")


def _losses(kind: str, overrides: tuple[str, ...], folder: Path) -> dict[int, float]:
    folder.mkdir()
    multiprocessing.spawn(_train, (kind, overrides, str(folder)))
    return torch.load(folder / "losses.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
@pytest.mark.parametrize(
    ("stage", "precision", "near"),
    [*((stage, "fp32", 5e-3) for stage in range(4)), (1, "bf16", 0.05), (1, "fp16", 0.05), (0, "fp16", 0.05)],
)
def test_a_run_goes_as_on_the_cpu(
    device: torch.device, kind: str, stage: int, precision: str, near: float, tmp_path: Path
) -> None:
    """TF32 convolutions of the pyramid and the order of sums are what differs in fp32."""
    gpu = f"engine.use_gpu={str(device.type == 'cuda').lower()}"
    there = (gpu, f"engine.zero_stage={stage}", f"engine.precision={precision}")
    losses = _losses(kind, there, tmp_path / "there")
    assert losses == pytest.approx(_losses(kind, ("engine.use_gpu=false",), tmp_path / "here"), rel=near)
    assert sorted(losses) == [2, 4, 6, 8, 10, 12]


def _output_of(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> str:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    return capsys.readouterr().out


def test_the_time_per_image_is_reported(device: torch.device, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    arguments = ["--recipe", "tiny", "--hypotheses", "8", "--repeats", "2"]
    output = _output_of("sampling_speed.py", arguments, monkeypatch, capsys)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "threads"
    precision = "bfloat16" if device.type == "cuda" else "float32"
    assert name in output and precision in output and "batch 1;" in output and "95 % within" in output
    assert re.findall(r"^(\S+): [\d.]+ ms", output, re.M) == ["encode", "T=1", "T=3", "T=5"]


def test_the_training_step_is_reported(device: torch.device, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    arguments = ["--recipe", "tiny", "--batch", "8", "--repeats", "2", "--peak-tflops", "989"]
    arguments += ["--set", "engine.precision=bf16"]
    output = _output_of("train_step.py", arguments, monkeypatch, capsys)
    assert len(re.findall(r"with(?:out)? gradient checkpointing: [\d.]+ images/s, \d+ ms a step", output)) == 2
    assert output.count("% of the peak") == 2
    if device.type == "cuda":
        assert "bf16" in output and output.count("GiB at most") == 2
