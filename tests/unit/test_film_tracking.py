"""Hands keep their numbers: through crossings and short losses, with a detector that is wrong now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.film.following import LOST_SEARCH_S, HandFollower
from maskhand.film.tracking import LOST_S, Tracker, seen_once
from maskhand.geometry2d import tight_box
from support.known_hands import known_hands

RATE = 30.0
SHAPES = known_hands(3, seed=11).joints_px
SHAPES = (SHAPES - SHAPES.mean(1, keepdims=True)) / np.ptp(SHAPES, axis=1).max(1)[:, None, None]
IMAGE = np.zeros((240, 320, 3), np.uint8)


def hand(shape: int, middle: Sequence[float], right: float, size: float = 80.0, score: float = 0.9) -> HandBox:
    points = (SHAPES[shape] * size + np.asarray(middle)).astype(np.float32)
    one = np.ones(1, np.float32)
    detection = Detections(points[None], np.full((1, 21), score, np.float32), one, np.full(1, right, np.float32))
    return HandBox(tight_box(points), "right" if right > 0.5 else "left", score, detection)


def crossing(seed: int) -> list[list[tuple[str, HandBox]]]:
    """Frames of (name, hand): a right and a left hand pass each other; the far one is hidden where they meet."""
    rng = np.random.default_rng(seed)
    frames: list[list[tuple[str, HandBox]]] = []
    for k in range(60):
        x = 40 + 4 * k
        # one frame in eight sees the wrong side
        sure = [rng.uniform(0.7, 1.0) if rng.random() > 0.125 else rng.uniform(0.1, 0.4) for _ in range(2)]
        here = [("right", hand(0, rng.normal([x, 120], 1.5), sure[0]))]
        if abs(k - 30) > 4:
            here.append(("left", hand(1, rng.normal([280 - 4 * k, 112], 1.5), 1 - sure[1], 66)))
        frames.append([here[i] for i in rng.permutation(len(here))])
    return frames


@pytest.mark.parametrize("seed", range(5))
def test_numbers_and_sides_survive_a_crossing(seed: int) -> None:
    tracker, numbers = Tracker(), {"right": set(), "left": set()}
    for k, frame in enumerate(crossing(seed)):
        names = {id(found): name for name, found in frame}
        for track, found in tracker.update([found for _, found in frame], k / RATE):
            numbers[names[id(found)]].add(track.number)
    assert [len(numbers[side]) for side in ("right", "left")] == [1, 1] and numbers["right"] != numbers["left"]
    assert {track.side for track in tracker.tracks} == {"right", "left"}


@pytest.mark.parametrize(("away_s", "tracks"), [(0.8 * LOST_S, 1), (1.3 * LOST_S, 2)])
def test_a_hand_that_was_away_for_long_is_another_one(away_s: float, tracks: int) -> None:
    tracker, numbers = Tracker(), set()
    for k in range(60):
        away = 0.1 < k / RATE < 0.1 + away_s
        found = [] if away else [hand(0, (100, 100), 0.9)]
        numbers |= {track.number for track, _ in tracker.update(found, k / RATE)}
    assert len(numbers) == tracks


def test_a_hand_of_the_other_side_takes_no_ones_place_after_many_frames() -> None:
    tracker = Tracker()
    for k in range(30):
        tracker.update([hand(0, (100, 100), 0.97)], k / RATE)
    ((track, _),) = tracker.update([hand(1, (130, 100), 0.03)], 31 / RATE)
    assert track.number == 1 and {t.number for t in tracker.tracks} == {0, 1}


def test_one_hand_seen_twice_is_one_and_two_that_overlap_are_two() -> None:
    twice = [hand(0, (100, 100), 0.9), hand(0, (103, 99), 0.9, score=0.95)]
    assert [found.score for found in seen_once(twice)] == [0.95]
    assert len(seen_once([hand(0, (100, 100), 0.9), hand(1, (104, 100), 0.1)])) == 2


class Scene:
    """A finder of the hands that are there, which counts its searches."""

    def __init__(self) -> None:
        self.there: list[HandBox] = []
        self.calls = {"find": 0, "search": 0, "follow": 0}

    def find(self, image: np.ndarray, max_hands: int = 10) -> list[HandBox]:
        self.calls["find"] += 1
        return list(self.there)

    def search(self, image: np.ndarray, known_px: Sequence[np.ndarray] = ()) -> list[HandBox]:
        self.calls["search"] += 1
        new = [h for h in self.there if all(np.linalg.norm(h.keypoints_px.mean(0) - k.mean(0)) > 20 for k in known_px)]
        assert len(new) + len(known_px) >= len(self.there)
        return new

    def follow(self, image: np.ndarray, keypoints_px: np.ndarray) -> HandBox | None:
        self.calls["follow"] += 1
        near = [h for h in self.there if np.linalg.norm(h.keypoints_px.mean(0) - keypoints_px.mean(0)) < 30]
        return near[0] if near else None


def test_palms_are_searched_now_and_then_and_when_a_hand_is_lost() -> None:
    scene = Scene()
    follower = HandFollower(scene, search_s=10 / RATE)
    counted = []
    for k in range(60):
        scene.there = [hand(0, (100 + k, 100), 0.9)]
        if k >= 20:  # a second hand comes, and is out of sight for a while
            scene.there += [] if 40 <= k < 46 else [hand(1, (250, 100), 0.1)]
        counted.append([track.number for track, _ in follower.hands(IMAGE, k / RATE)])
    assert scene.calls["find"] == 1, "there was a hand from the first frame on"
    assert counted[19] == [0] and counted[30] == [0, 1] and counted[43] == [0] and counted[46:] == [[0, 1]] * 14
    lost = round(6 / RATE / LOST_SEARCH_S)
    assert 5 <= scene.calls["search"] <= 6 + lost
    assert scene.calls["follow"] < 60 * 2


def test_frames_far_apart_are_searched_each_and_keep_their_hands() -> None:
    scene = Scene()
    follower = HandFollower(scene)
    scene.there = [hand(0, (100, 100), 0.9)]
    assert [[t.number for t, _ in follower.hands(IMAGE, float(k))] for k in range(5)] == [[0]] * 5
    assert scene.calls["find"] + scene.calls["search"] == 5


def test_an_empty_film_is_searched_now_and_then() -> None:
    scene = Scene()
    follower = HandFollower(scene, search_s=10 / RATE)
    assert [follower.hands(IMAGE, k / RATE) for k in range(31)] == [[]] * 31
    assert scene.calls == {"find": 4, "search": 0, "follow": 0}
