"""Hands followed through the frames of a film: the hands of each frame are given to tracks, whose numbers stay.

A track expects its hand where it would be at its speed. Tracks and hands are matched at the least total cost (Hungarian
method) of position, size, pose and side. A track's side is a vote over its frames; it outlives short losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskhand.annotate.detectors import HandBox
from maskhand.annotate.hand_finder import is_same_or_part
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.geometry2d import tight_box

LOST_S = 0.5
"""A track whose hand was not seen for longer ends, but not before two frames without it."""
SPEED_FADES_S = 0.15
"""A lost hand is expected to slow down: its expected way ends after so many seconds at its speed."""
SPEED_MEMORY_S = 0.08
"""Time constant of a track's speed."""
POSITION, SIZE, POSE, SIDE = 1.0, 0.5, 1.0, 1.0
"""Weights of the parts of the cost: distance of the middles in hand sizes, logarithm of the sizes' ratio, mean distance
of the keypoints of equally large, centered hands in hand sizes, disagreement about the side (0 to 1)."""
MAX_COST, MORE_COST_PER_S = 1.0, 1.5
"""A hand that would cost more, its pose left out, is another one; a lost hand may have moved further."""
VOTE_SHARE = 0.1
"""Frames that follow each other err alike: so many of a frame's log odds count when a track's side is compared."""
SAME_HAND = 0.15
"""Two hands of one frame with a smaller mean distance of keypoints, in hand sizes, are one hand seen twice."""
SURE_OF_SIDE = 0.98
"""Limit of the probability with which one frame votes for a side."""


@dataclass
class Track:
    """A hand through the film."""

    number: int
    keypoints_px: Array
    """(21, 2) when it was last seen."""
    time_s: float
    """Of that frame."""
    velocity_px_s: Array
    """(2,) of the hand's middle."""
    right_log_odds: float = 0.0
    """Sum of the votes of all frames, positive for a right hand."""
    seen: int = 1
    """Number of frames."""

    @property
    def side(self) -> Side:
        return "right" if self.right_log_odds > 0 else "left"

    @property
    def right_probability(self) -> float:
        """By the vote; sure only after many frames."""
        return float(1 / (1 + np.exp(-np.clip(VOTE_SHARE * self.right_log_odds, -30, 30))))

    def expected_px(self, time_s: float) -> Array:
        """(21, 2) keypoints as they would be at that time."""
        ahead_s = SPEED_FADES_S * (1 - np.exp(-(time_s - self.time_s) / SPEED_FADES_S))
        return self.keypoints_px + self.velocity_px_s * ahead_s


class Tracker:
    """Gives numbers to hands, frame by frame."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        """Those that have not ended, oldest first."""
        self._next, self._last_s = 0, 0.0

    def end_old(self, time_s: float) -> None:
        """End the tracks that are lost for too long at this time, that of the next frame."""
        longest_s = max(LOST_S, 2.5 * (time_s - self._last_s))
        self.tracks = [track for track in self.tracks if time_s - track.time_s <= longest_s]

    def update(self, hands: Sequence[HandBox], time_s: float) -> list[tuple[Track, HandBox]]:
        """Give the hands found at this time, each once, to tracks; what fits no track begins one.

        A hand that begins a track must not be a part of one that a track has.
        """
        self.end_old(time_s)
        self._last_s = time_s
        cost = np.array([[track_cost(track, hand, time_s) for hand in hands] for track in self.tracks])
        cost = cost.reshape(len(self.tracks), len(hands))
        rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, 1e3))
        pairs = [
            (self.tracks[row], hands[column])
            for row, column in zip(rows, columns, strict=True)
            if np.isfinite(cost[row, column])
        ]
        for track, hand in pairs:
            _move(track, hand, time_s)
        taken = [hand for _, hand in pairs]
        for hand in hands:
            if not any(hand is other or is_same_or_part(hand, other) for other in taken):
                track = Track(self._next, _points(hand), time_s, np.zeros(2), _vote(hand))
                self._next += 1
                self.tracks.append(track)
                pairs.append((track, hand))
                taken.append(hand)
        return sorted(pairs, key=lambda pair: pair[0].number)


def track_cost(track: Track, hand: HandBox, time_s: float) -> float:
    """The cost of giving a hand to a track; infinite where it is another hand."""
    expected, found = track.expected_px(time_s), _points(hand)
    size_expected, size_found = _size(expected), _size(found)
    size = float(np.sqrt(size_expected * size_found))
    middle_expected, middle_found = expected.mean(0), found.mean(0)
    position = float(np.linalg.norm(middle_expected - middle_found)) / size
    scale = abs(float(np.log(size_found / size_expected)))
    pose = _apart((expected - middle_expected) / size_expected, (found - middle_found) / size_found)
    side = abs(track.right_probability - float(hand.detection.right_probability[0]))
    cost = POSITION * position + SIZE * scale + SIDE * side
    # a detector that starts upside down may find another pose in the same place a moment later
    return cost + POSE * pose if cost < MAX_COST + MORE_COST_PER_S * (time_s - track.time_s) else float("inf")


def seen_once(hands: Sequence[HandBox]) -> list[HandBox]:
    """The hands without those whose keypoints are nearly those of a better one, best first.

    Crossing hands overlap as much as one hand seen twice does; their keypoints differ.
    """
    kept: list[HandBox] = []
    for hand in sorted(hands, key=lambda h: -h.score):
        points = _points(hand)
        if all(_apart(points, _points(other)) > SAME_HAND * _size(_points(other)) for other in kept):
            kept.append(hand)
    return kept


def _move(track: Track, hand: HandBox, time_s: float) -> None:
    points, passed_s = _points(hand), time_s - track.time_s
    if passed_s > 0:
        velocity = (points.mean(0) - track.keypoints_px.mean(0)) / passed_s
        share = 1 - np.exp(-passed_s / SPEED_MEMORY_S)
        track.velocity_px_s = track.velocity_px_s + share * (velocity - track.velocity_px_s)
    track.keypoints_px, track.time_s = points, time_s
    track.right_log_odds += _vote(hand)
    track.seen += 1


def _vote(hand: HandBox) -> float:
    """Log odds of a right hand, by how sure the detector was of hand and side."""
    right = float(np.clip(hand.detection.right_probability[0], 1 - SURE_OF_SIDE, SURE_OF_SIDE))
    return float(hand.score * np.log(right / (1 - right)))


def _points(hand: HandBox) -> Array:
    return np.asarray(hand.keypoints_px, np.float64)


def _size(points: Array) -> float:
    box = tight_box(points)
    return max(float((box[2:] - box[:2]).max()), 1e-6)


def _apart(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b, axis=1).mean())
