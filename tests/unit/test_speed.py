"""Seconds per image: numbers of iterations take turns, once per process, and say how far they are."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from maskhand.batch import POSE_CHANNELS
from maskhand.config import SamplerConfig
from maskhand.paper.measures import speed
from maskhand.recipe_files import load_recipe


def test_load_that_comes_and_goes_slows_all_numbers_of_iterations_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is twice as slow from the second measured turn on; one after the other, T = 1 would not notice."""
    clock_s, order, told = [0.0], list[int](), list[tuple[float, float, str]]()
    encoder = SimpleNamespace(image_size=(4, 4))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["encoder"] = encoder

        def encode(self, _image: torch.Tensor, keypoints: torch.Tensor) -> None:
            assert keypoints.shape == (1, 21, POSE_CHANNELS)

    def sample(_model: object, _context: object, sampler: SamplerConfig, _generator: object) -> None:
        order.append(sampler.iterations)
        clock_s[0] += (1.0 if len(order) <= 3 * 3 else 2.0) * (10 + sampler.iterations)

    def progress(done: float, total: float, text: str = "") -> None:
        told.append((done, total, text))

    monkeypatch.setattr(speed, "_TIMED", {})
    monkeypatch.setattr(speed, "build_model", lambda *_, **__: Network())
    monkeypatch.setattr(speed, "sample", sample)
    clocks = SimpleNamespace(perf_counter=lambda: clock_s[0], process_time=lambda: clock_s[0])
    monkeypatch.setattr(speed, "time", clocks)
    found = speed.seconds_per_image(load_recipe("tiny"), (1, 3, 5), progress)
    assert order == list(itertools.chain.from_iterable(itertools.repeat((1, 3, 5), 12)))
    assert found == {1: 22.0, 3: 26.0, 5: 30.0}
    assert [done for done, _, _ in told] == list(range(37)) and {total for _, total, _ in told} == {36}
    assert told[0][2] == "building the network" and told[-1][2] == "T = 5: 30 s"
    other_row = load_recipe("tiny", ["sampler.iterations=3"])
    assert speed.seconds_per_image(other_row, (1, 3, 5), progress) == found and len(order) == 36
    speed.seconds_per_image(load_recipe("tiny", ["seed=7"]), (1, 3, 5), progress)
    assert len(order) == 72, "another seed is another measurement"
