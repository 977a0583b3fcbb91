"""What an official format offers: scoring its files and writing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskhand.scoring.predictions import Layout, Predictions
from maskhand.scoring.scores import Scores


@dataclass(frozen=True)
class GroundTruth:
    """Published labels that prediction files are scored against."""

    path: Path
    """A file, or a folder of them; docs/evaluation.md says which."""
    split: str
    """The frames that count, where `path` is a whole dataset's own folder."""
    official: Mapping[str, int]
    """Dataset and split -> number of samples that its makers state; any other number is a warning."""


@dataclass(frozen=True)
class Format:
    """One official format."""

    score: Callable[[GroundTruth, Path], Scores]
    """(labels, prediction file) -> the official numbers; ScoreError, a sentence, for files that cannot be scored."""
    write: Callable[[Predictions, Layout], dict[str, bytes]]
    """Predictions -> file name -> content; SubmissionError where the shards do not know the official positions."""
