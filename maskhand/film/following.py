"""Hands found in the frames of a film: where they were a frame ago first, and by their palms now and then.

The search for palms runs the palm model on seven regions of an image and then verifies each palm; the landmark model
alone, started from the hand of the frame before, is several times as fast (MediaPipe's way).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from maskhand.annotate.detectors import HandBox
from maskhand.arrays import Array
from maskhand.film.tracking import Track, Tracker, seen_once

SEARCH_S = 1 / 3
"""Between searches for palms while every known hand is seen."""
LOST_SEARCH_S = 0.1
"""The same while one is lost; the landmark model looks for it in every frame."""
JITTER_S = 1e-3
"""Times of frames are rounded by containers."""


class FrameFinder(Protocol):
    """What finds hands in a frame; `annotate.hand_finder.HandFinder` does."""

    def find(self, image: Array, max_hands: int = 10) -> list[HandBox]:
        """All hands of an image (H, W, 3) uint8 RGB, by every means."""

    def search(self, image: Array, known_px: Sequence[Array] = ()) -> list[HandBox]:
        """The hands at palms, but for those whose keypoints (21, 2) are known."""

    def follow(self, image: Array, keypoints_px: Array) -> HandBox | None:
        """The hand about where keypoints (21, 2) expect it; None when it is not there."""


class HandFollower:
    """Finds the hands of one frame after the other, each with its track."""

    def __init__(self, finder: FrameFinder, search_s: float = SEARCH_S) -> None:
        """search_s: 0 searches for palms in each frame."""
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
