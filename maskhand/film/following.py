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

SEARCH_EVERY = 10
"""Frames between searches for palms while every known hand is seen."""
LOST_SEARCH_EVERY = 3
"""The same while one is lost, for `LOST_S` at most; the landmark model looks for it in every frame."""


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

    def __init__(self, finder: FrameFinder, search_every: int = SEARCH_EVERY) -> None:
        """search_every: number of frames; 1 searches for palms in each."""
        self.tracker = Tracker()
        self._finder, self._every = finder, search_every
        self._since_search = search_every

    def hands(self, image: Array, time_s: float) -> list[tuple[Track, HandBox]]:
        """The hands of the next frame (H, W, 3) uint8 RGB, by track number."""
        self.tracker.end_old(time_s)
        tracks = self.tracker.tracks
        followed = [self._finder.follow(image, track.expected_px(time_s)) for track in tracks]
        hands = seen_once([hand for hand in followed if hand is not None])
        self._since_search += 1
        every = min(LOST_SEARCH_EVERY, self._every) if len(hands) < len(tracks) else self._every
        if self._since_search >= every:
            self._since_search = 0
            known = [hand.keypoints_px for hand in hands]
            more = self._finder.search(image, known) if tracks else self._finder.find(image)
            hands = seen_once([*hands, *more])
        return self.tracker.update(hands, time_s)
