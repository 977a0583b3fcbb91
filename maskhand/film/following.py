"""Detection of hands in the frames of a film: first near their previous positions, and from time to time by palms.

The palm search runs the palm model on several regions of an image and then verifies each palm; running only the
landmark model, started from the hand in the previous frame, is several times as fast (as in MediaPipe).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from maskhand.annotate.detectors import HandBox
from maskhand.arrays import Array
from maskhand.film.tracking import Track, Tracker, seen_once

SEARCH_S = 1 / 3
"""Interval between palm searches while all known hands are seen."""
LOST_SEARCH_S = 0.1
"""The same while a hand is lost; the landmark model searches for it in every frame."""
JITTER_S = 1e-3
"""Tolerance, as containers round frame times."""


class FrameFinder(Protocol):
    """Finds hands in a frame; implemented by `annotate.hand_finder.HandFinder`."""

    def find(self, image: Array, max_hands: int = 10) -> list[HandBox]:
        """All hands of an image (H, W, 3) uint8 RGB, by an exhaustive search."""

    def search(self, image: Array, known_px: Sequence[Array] = ()) -> list[HandBox]:
        """The hands found by palm search, except those with known keypoints (21, 2)."""

    def follow(self, image: Array, keypoints_px: Array) -> HandBox | None:
        """The hand near the expected keypoints (21, 2); None if it is not there."""


class HandFollower:
    """Finds the hands of successive frames and assigns them to tracks."""

    def __init__(self, finder: FrameFinder, search_s: float = SEARCH_S) -> None:
        """search_s: interval between palm searches; 0: search in every frame."""
        self.tracker = Tracker()
        self._finder, self._search_s = finder, search_s
        self._searched_s = -float("inf")

    def hands(self, image: Array, time_s: float) -> list[tuple[Track, HandBox]]:
        """The hands of the next frame (H, W, 3) uint8 RGB, by track number."""
        self.tracker.end_old(time_s)
        tracks = self.tracker.tracks
        followed = [self._finder.follow(image, track.expected_px(time_s)) for track in tracks]
        hands = seen_once([hand for hand in followed if hand is not None])
        wait_s = min(LOST_SEARCH_S, self._search_s) if len(hands) < len(tracks) else self._search_s
        if time_s - self._searched_s >= wait_s - JITTER_S:
            self._searched_s = time_s
            known = [hand.keypoints_px for hand in hands]
            more = self._finder.search(image, known) if tracks else self._finder.find(image)
            hands = seen_once([*hands, *more])
        return self.tracker.update(hands, time_s)
