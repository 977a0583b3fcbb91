"""What scoring a prediction file found: headline numbers, counts, values per joint, and warnings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand.errors import MaskhandError


class ScoreError(MaskhandError, ValueError):
    """A ground truth or prediction file that cannot be scored; the message names the file, the field and the remedy."""


@dataclass(frozen=True)
class Scores:
    """One prediction file on one benchmark."""

    benchmark: str
    metrics: Mapping[str, float]
    """Headline numbers; the unit is part of the name, what has none is a fraction from 0 to 1. NaN has a warning."""
    counts: Mapping[str, int]
    """`samples` and what else was counted: left out, not finite."""
    per_joint: Mapping[str, np.ndarray]
    """Metric -> a value per joint, in the order of `joints`; NaN for a joint that is never annotated."""
    joints: Sequence[str]
    """Names of the joints, in the benchmark's own order."""
    warnings: Sequence[str]

    def to_json(self) -> bytes:
        """Headline numbers at the top; NaN becomes null."""
        values: dict[str, Any] = {
            "benchmark": self.benchmark,
            **{name: _number(value) for name, value in self.metrics.items()},
            "counts": dict(self.counts),
            "joints": list(self.joints),
            "per_joint": {name: [_number(v) for v in row] for name, row in self.per_joint.items()},
            "warnings": list(self.warnings),
        }
        return (json.dumps(values, indent=1) + "\n").encode()

    def table(self) -> list[tuple[str, str]]:
        """Rows of (metric, value) for people."""
        return [(name, _text(name, value)) for name, value in self.metrics.items()]


def count_warning(samples: int, official: Mapping[str, int]) -> list[str]:
    """A sentence when the number of samples is none of the official ones (name of the set -> number), if any is
    known."""
    if not official or samples in official.values():
        return []
    known = " or ".join(f"{count:,} ({name})" for name, count in official.items())
    return [f"{samples:,} samples, while the official set has {known}: not comparable with published numbers"]


def failed_warning(failed: int, treatment: str) -> list[str]:
    return [f"{failed:,} predictions are not finite numbers and were {treatment}"] if failed else []


def joint_warning(counts: np.ndarray, joints: Sequence[str], metric: str) -> list[str]:
    """A sentence that names the joints without any sample, given (J,) numbers of samples."""
    never = [name for name, count in zip(joints, counts, strict=True) if not count]
    if not never:
        return []
    if len(never) == len(joints):
        return [f"{metric}: no joint is annotated in any sample, so there is no number"]
    return [f"{metric}: never annotated, left out of the mean over joints: {', '.join(never)}"]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _text(name: str, value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if name.endswith(("_mm", "_px")) else f"{value:.4f}"
