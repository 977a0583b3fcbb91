"""A report of speed says what was measured on what; the figures themselves are nobody's test."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maskhand.loading.poses import PosePool
from maskhand.models.backbone import VisionTransformerEncoder
from maskhand.models.bundle import ModelBundle
from maskhand.recipe_files import load_recipe
from support.model_parts import small_model, small_recipe

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_time_of_a_prediction_names_its_conditions(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    arguments = ["--recipe", "tiny", "--hypotheses", "4", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["sampling_speed.py", *arguments])
    runpy.run_path(str(FOLDER / "sampling_speed.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"recipe tiny, .*float(16|32), batch 1;", said) and f"torch {torch.__version__}" in said
    assert "detector and cropping not included" in said
    assert re.findall(r"^(\S+): [\d.]+ ms", said, re.M) == ["encode", "T=1", "T=3", "T=5"]
    assert re.search(r"4 hypotheses at once: [\d.]+ s; 4 runs of one: [\d.]+ s .*; [\d.]+x", said)


def test_the_encoders_multiplications_are_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against PyTorch's counter, which sees every operation; and ViT-H's 124 G multiply-adds on 256 x 192."""
    monkeypatch.syspath_prepend(str(FOLDER))
    from train_step import build, encoder_flops

    model = build(load_recipe("tiny"), "cpu").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.encoder(torch.randn(1, 3, *model.encoder.image_size))
    assert encoder_flops(model) == counter.get_total_flops()
    with torch.device("meta"):
        huge = VisionTransformerEncoder(load_recipe("base").model.backbone, (256, 192))
    assert encoder_flops(SimpleNamespace(encoder=huge)) / 2e9 == pytest.approx(124.0, rel=1e-3)


def test_usage_counts_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from tokenizer import code_usage

    class Halves:
        codebook_size = 4

        def encode(self, rotmats: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0, 3]).expand(len(rotmats), 2)

    poses = PosePool(np.zeros((5, 16, 3), np.float32), np.zeros((5, 10), np.float32))
    usage = code_usage(Halves(), poses)
    assert usage == pytest.approx({"perplexity": 2.0, "unused_percent": 50.0})


def test_forms_of_a_network_are_compared_in_one_run(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import export

    recipe = small_recipe(pose2d_tokens=21)
    model = small_model(recipe)
    bundle = ModelBundle(model, recipe, {}, model.mano.digest, "0" * 64)
    shape = (2, 21, 3)
    export._compare(bundle, lambda pixels, keypoints: SimpleNamespace(joints_m=np.zeros(shape)), 2, 1, False)  # type: ignore[arg-type]
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows] == ["torch fp32", "torch bf16", "ONNX Runtime"]
    assert rows[0][3:] == ["1.00", "0.0000"] and float(rows[2][4]) > 10


def test_losses_of_a_training_on_other_numbers_of_workers_stand_beside_the_undisturbed_ones(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from elasticity import table

    whole = {step: 1 / step for step in range(1, 7)}
    parts = whole | {6: whole[6] * 1.001}
    rows = table(whole, parts, dict(zip(whole, (2, 2, 1, 1, 4, 4), strict=True)), every=3)[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [cell[:2] for cell in cells] == [["1", "2"], ["3", "1"], ["6", "4"]]
    assert [float(cell[4]) for cell in cells] == pytest.approx([0, 0, 1e-3])


def test_memory_used_again_stands_beside_memory_returned(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    arguments = ["--batch", "2", "--px", "64", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["memory.py", *arguments])
    import memory

    memory.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[:2] for row in rows] == [
        [name, way] for way in ("returned", "used again") for name in ("forward", "forward and backward")
    ]
    assert all(float(row[2]) > 0 and float(row[4]) > 100 for row in rows)
