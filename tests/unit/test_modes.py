"""Distinct hands among drawn ones: bundles in closed form, distances against the metric."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.predict.modes import MODE_MM, Mode, find_modes, pairwise_mm

RNG = np.random.default_rng(0)
OPEN = RNG.normal(0, 0.04, (21, 3))
FIST = RNG.normal(0, 0.04, (21, 3))


def moved(hand: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hand elsewhere, turned and larger: the same one."""
    return (hand @ Rotation.random(random_state=int(rng.integers(1 << 30))).as_matrix().T) * rng.uniform(
        0.8, 1.2
    ) + rng.normal(0, 1, 3)


def test_two_bundles_are_two_modes_with_their_shares() -> None:
    rng = np.random.default_rng(1)
    hands = [OPEN + rng.normal(0, 0.001, OPEN.shape) for _ in range(6)]
    hands += [FIST + rng.normal(0, 0.001, OPEN.shape) for _ in range(3)]
    order = rng.permutation(9)
    drawn = np.array([5, 1, 1, 1, 1, 1, 7, 2, 1])  # 10 and 10 draws, until one of them is drawn more often
    drawn[8] = 11
    modes = find_modes(np.stack([moved(hands[k], rng) for k in order]), drawn[order])
    first, second = ({int(order[m]) for m in mode.members} for mode in modes)
    assert first == {6, 7, 8} and second == set(range(6)), "the more frequent one comes first"
    assert [mode.share for mode in modes] == pytest.approx([20 / 30, 10 / 30])
    assert sum(len(mode.members) for mode in modes) == 9


def test_the_medoid_is_in_the_middle_of_the_draws() -> None:
    """On a line of hands the weighted median is the middle; a hand drawn often pulls it."""
    direction = RNG.normal(0, 1, OPEN.shape)
    direction -= direction.mean(0)
    line = np.stack([OPEN + 1e-4 * step * direction for step in (0, 1, 2, 3, 4)])
    assert find_modes(line, [1, 1, 1, 1, 1]) == (Mode((0, 1, 2, 3, 4), 1.0, 2),)
    assert find_modes(line, [1, 1, 1, 1, 9])[0].medoid == 4


def test_modes_are_apart_by_the_threshold() -> None:
    rng = np.random.default_rng(2)
    cloud = OPEN + rng.normal(0, 0.006, (40, *OPEN.shape))
    distance = pairwise_mm(cloud)
    counts = [len(find_modes(cloud, [1] * 40, mode_mm)) for mode_mm in (0.0, MODE_MM, 1e3)]
    assert counts[0] == 40 and counts[-1] == 1
    for one, other in ((a, b) for modes in [find_modes(cloud, [1] * 40)] for a in modes for b in modes if a is not b):
        assert distance[np.ix_(one.members, other.members)].mean() > MODE_MM


def test_one_hand_and_none() -> None:
    assert find_modes(OPEN[None], [100]) == (Mode((0,), 1.0, 0),)
    assert find_modes(np.stack([OPEN, OPEN]), [3, 1]) == (Mode((0, 1), 1.0, 0),)


def test_distances_are_the_pa_mpjpe_of_both_directions() -> None:
    rng = np.random.default_rng(3)
    hands = np.stack([moved(hand, rng) for hand in (OPEN, FIST, OPEN + 0.01 * rng.normal(size=OPEN.shape), OPEN)])
    measured = pairwise_mm(hands)
    for a in range(4):
        for b in range(4):
            both = [pa_mpjpe_mm(hands[i], hands[j]) for i, j in ((a, b), (b, a))]
            assert measured[a, b] == pytest.approx(np.mean(both), abs=1e-6)
    mirrored = np.stack([OPEN, OPEN * (-1, 1, 1)])
    assert pairwise_mm(mirrored)[0, 1] > 10, "no reflection"


def pa_mpjpe_mm(hand: np.ndarray, target: np.ndarray) -> float:
    """By scipy's rotation and the scale in closed form."""
    a, b = hand - hand.mean(0), target - target.mean(0)
    turned = Rotation.align_vectors(b, a)[0].apply(a)
    scale = (turned * b).sum() / (turned * turned).sum()
    return float(1e3 * np.linalg.norm(scale * turned - b, axis=1).mean())
