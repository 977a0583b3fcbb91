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
    """Number of the track: the same for a hand in all frames."""
    seen: bool
    """False if a short loss was filled in from neighboring frames; expected errors are NaN then."""
    hand: PredictedHand


@dataclass(frozen=True)
class Appearance:
    """A hand found in a frame, before its track is complete."""

    frame: int
    time_s: float
    track: int
    found: HandBox
    side: Side
    """By the vote of the track's frames so far."""


@dataclass(frozen=True)
class TrackedHand:
    """One hand throughout the film: the T processed frames from its first to its last one."""

    number: int
    side: Side
    """By the vote of all frames."""
    frames: Array64
    """(T,) positions in the film."""
    predicted: tuple[PredictedHand | None, ...]
    """T hands without vertices, each predicted from its own frame; None in frames where it was not seen."""
    motion: Motion
    """Their motion, smoothed in a `TrackedFilm`."""

    @property
    def seen(self) -> Array64:
        """(T,) bool."""
        return np.array([hand is not None for hand in self.predicted])
