"""Tracking of hands through the frames of a film: the hands of each frame are assigned to numbered tracks.

A track predicts its hand's position from its velocity. Tracks and hands are matched with minimal total cost (Hungarian
method) of position, size, pose and side. A track's side is a vote over its frames; tracks survive short losses.
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
"""A track ends when its hand was not seen for longer, but not before two frames without it."""
SPEED_FADES_S = 0.15
"""Time constant with which the predicted speed of a lost hand decays: it moves on by this time at its speed."""
SPEED_MEMORY_S = 0.08
"""Time constant of the low-pass filter of a track's velocity."""
POSITION, SIZE, POSE, SIDE = 1.0, 0.5, 1.0, 1.0
"""Weights of the cost terms: distance of the centers in hand sizes, logarithm of the size ratio, mean keypoint distance
of the centered hands scaled to size 1, disagreement about the side (0 to 1)."""
MAX_COST, MORE_COST_PER_S = 1.0, 1.5
"""Maximum cost (without the pose term) of a match, and its increase with time for a lost hand."""
VOTE_SHARE = 0.1
"""Factor on a frame's log odds when a track's side is compared, as errors of consecutive frames are correlated."""
SAME_HAND = 0.15
"""Two detections in a frame with a smaller mean keypoint distance, in hand sizes, are the same hand."""
SURE_OF_SIDE = 0.98
"""Limit of the probability with which one frame votes for a side."""


@dataclass
class Track:
    """A hand throughout the film."""

    number: int
    keypoints_px: Array
    """(21, 2) when it was last seen."""
    time_s: float
    """Time of that frame."""
    velocity_px_s: Array
    """(2,) velocity of the hand's center."""
    right_log_odds: float = 0.0
    """Sum of the votes of all frames, positive for a right hand."""
    seen: int = 1
    """Number of frames in which it was seen."""

    @property
    def side(self) -> Side:
        return "right" if self.right_log_odds > 0 else "left"

    @property
    def right_probability(self) -> float:
        """From the vote; close to 0 or 1 only after many frames."""
        return float(1 / (1 + np.exp(-np.clip(VOTE_SHARE * self.right_log_odds, -30, 30))))

    def expected_px(self, time_s: float) -> Array:
        """(21, 2) predicted keypoints at that time."""
        ahead_s = SPEED_FADES_S * (1 - np.exp(-(time_s - self.time_s) / SPEED_FADES_S))
        return self.keypoints_px + self.velocity_px_s * ahead_s


class Tracker:
    """Assigns hands to tracks, frame by frame."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        """The active tracks, oldest first."""
        self._next, self._last_s = 0, 0.0

    def end_old(self, time_s: float) -> None:
        """End the tracks that have been lost for too long at time_s, the time of the next frame."""
        longest_s = max(LOST_S, 2.5 * (time_s - self._last_s))
        self.tracks = [track for track in self.tracks if time_s - track.time_s <= longest_s]

    def update(self, hands: Sequence[HandBox], time_s: float) -> list[tuple[Track, HandBox]]:
        """Assign the hands found at this time, without duplicates, to tracks; a hand that fits none starts a new track.

        A new track is not started for a detection that is a part of an already assigned hand.
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
    """The cost of assigning a hand to a track; infinite if it must be another hand."""
    expected, found = track.expected_px(time_s), _points(hand)
    size_expected, size_found = _size(expected), _size(found)
    size = float(np.sqrt(size_expected * size_found))
    middle_expected, middle_found = expected.mean(0), found.mean(0)
    position = float(np.linalg.norm(middle_expected - middle_found)) / size
    scale = abs(float(np.log(size_found / size_expected)))
    pose = _apart((expected - middle_expected) / size_expected, (found - middle_found) / size_found)
    side = abs(track.right_probability - float(hand.detection.right_probability[0]))
    cost = POSITION * position + SIZE * scale + SIDE * side
    # no limit on the pose term: a detector that started upside down may find another pose a moment later
    return cost + POSE * pose if cost < MAX_COST + MORE_COST_PER_S * (time_s - track.time_s) else float("inf")


def seen_once(hands: Sequence[HandBox]) -> list[HandBox]:
    """The hands, best first, without duplicates: those whose keypoints nearly equal those of a better one.

    Keypoints are compared because crossing hands may overlap as much as duplicates, but have different keypoints.
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
    """Log odds of a right hand, weighted by the detection score."""
    right = float(np.clip(hand.detection.right_probability[0], 1 - SURE_OF_SIDE, SURE_OF_SIDE))
    return float(hand.score * np.log(right / (1 - right)))


def _points(hand: HandBox) -> Array:
    return np.asarray(hand.keypoints_px, np.float64)


def _size(points: Array) -> float:
    box = tight_box(points)
    return max(float((box[2:] - box[:2]).max()), 1e-6)


def _apart(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b, axis=1).mean())
