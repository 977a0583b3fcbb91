"""The records of hands in film."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskhand.annotate.detectors import HandBox
from maskhand.arrays import Array64
from maskhand.conventions import Side
from maskhand.film.smoothing import Motion
from maskhand.predict.records import PredictedHand


@dataclass(frozen=True)
class FilmHand:
    """A hand in one frame."""

    frame: int
    """Position in the film, from 0."""
    time_s: float
    track: int
    """The same number for the same hand in all frames."""
    seen: bool
    """False where a short loss was filled in from the frames around it; expected errors are NaN there."""
    hand: PredictedHand


@dataclass(frozen=True)
class Appearance:
    """A hand found in a frame, before it is known what becomes of its track."""

    frame: int
    time_s: float
    track: int
    found: HandBox
    side: Side
    """By the vote of the track's frames until then."""


@dataclass(frozen=True)
class TrackedHand:
    """One hand through the film: the T frames looked at from its first to its last."""

    number: int
    side: Side
    """By the vote of all frames."""
    frames: Array64
    """(T,) positions in the film."""
    predicted: tuple[PredictedHand | None, ...]
    """T hands without vertices, each by its own frame alone; None where it was not seen."""
    motion: Motion
    """The same, smoothed."""

    @property
    def seen(self) -> Array64:
        """(T,) bool."""
        return np.array([hand is not None for hand in self.predicted])
