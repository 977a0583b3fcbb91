"""What ranks hold of a parameter, cut anywhere, is found again by ranks that cut it elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.config import ConfigError
from maskhand.training.engine_settings import accumulation
from maskhand.training.optimizer_shards import MOMENTS, WEIGHT, CheckpointError, SavedPieces
from support.training_fakes import small_recipe


def _written(folder: Path, whole: dict[str, torch.Tensor], cuts: list[int]) -> list[Path]:
    """The elements of all parameters one after the other, cut at these places, a file each."""
    files, ends = [], np.cumsum([len(values) for values in whole.values()])
    for rank, (first, last) in enumerate(zip([0, *cuts], [*cuts, ends[-1]], strict=True)):
        held = {}
        for (name, values), end in zip(whole.items(), ends, strict=True):
            begin = end - len(values)
            start, stop = max(first, begin) - begin, min(last, end) - begin
            if start < stop:
                held[name] = {
                    "start": int(start),
                    **{key: values[start:stop] + k for k, key in enumerate((WEIGHT, *MOMENTS))},
                }
        files.append(folder / f"rank-{rank:05d}.pt")
        torch.save(held, files[-1])
    return files


@pytest.mark.parametrize("cuts", [[], [7], [3, 4, 11, 19]])
def test_any_run_of_elements_is_read_from_any_cut(cuts: list[int], tmp_path: Path) -> None:
    whole = {"a.weight": torch.arange(10.0), "a.bias": torch.arange(10.0, 12.0), "b": torch.arange(12.0, 23.0)}
    saved = SavedPieces(_written(tmp_path, whole, cuts))
    for name, values in whole.items():
        for start in range(len(values)):
            for stop in range(start + 1, len(values) + 1):
                for k, key in enumerate((WEIGHT, *MOMENTS)):
                    target = torch.full((stop - start,), torch.nan)
                    saved.fill(target, name, key, start)
                    assert torch.equal(target, values[start:stop] + k)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    files = _written(tmp_path, {"a": torch.arange(10.0)}, [4, 6])
    with pytest.raises(CheckpointError, match=r"holds 8 of the 10 elements wanted of a \(exp_avg\); delete"):
        SavedPieces([files[0], files[2]]).fill(torch.zeros(10), "a", "exp_avg")
    with pytest.raises(CheckpointError, match="holds 0 of the 3 elements wanted of b"):
        SavedPieces(files).fill(torch.zeros(3), "b", WEIGHT)


def test_a_share_is_computed_in_the_fewest_equal_parts() -> None:
    for batch in range(1, 25):
        for world in [n for n in range(1, batch + 1) if batch % n == 0]:
            rows = batch // world
            for most in range(1, rows + 2):
                sizes = [size for size in range(1, most + 1) if rows % size == 0]
                assert accumulation(batch, world, most) == rows // max(sizes)
            assert accumulation(batch, world, None) == 1
    with pytest.raises(ValueError, match=r"optim\.batch=8 does not divide over engine\.workers=3"):
        accumulation(8, 3, None)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("engine.offload=all", "engine.zero_stage=2"), "engine.offload=all needs engine.zero_stage=3"),
        (("engine.offload=optimizer", "engine.zero_stage=0"), "engine.offload=optimizer needs engine.zero_stage=1"),
        (("engine.workers=2", "engine.min_workers=3"), "engine.min_workers=3 is more than engine.workers=2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        small_recipe(*overrides)
