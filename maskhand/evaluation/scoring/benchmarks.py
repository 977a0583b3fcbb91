"""The benchmarks that prediction files are scored on, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from maskhand.evaluation.scoring import dexycb, hint, interhand, mesh
from maskhand.evaluation.scoring.scores import ScoreError, Scores

BENCHMARKS: Mapping[str, Callable[[Any, Path, Mapping[str, int]], Scores]] = {
    "freihand": partial(mesh.score, mesh.FREIHAND),
    "ho3d": partial(mesh.score, mesh.HO3D),
    "dexycb": dexycb.score,
    "hint": hint.score,
    "interhand": interhand.score,
}


def score(benchmark: str, gt: Any, pred: Path, official: Mapping[str, int]) -> Scores:
    """Score a prediction file against a ground truth; both in the benchmark's official formats (docs/evaluation.md).

    gt: a path, or the truth in pieces where the benchmark takes it so (`dexycb.score`); official: split -> number of
    samples, another number is a warning.

    Raises ScoreError, a sentence, for an unknown benchmark and for files that cannot be scored.
    """
    if benchmark not in BENCHMARKS:
        raise ScoreError(f"benchmark {benchmark!r} not known; known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[benchmark](gt, pred, official)
