"""A report of speed says what was measured on what; the figures themselves are nobody's test."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

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
