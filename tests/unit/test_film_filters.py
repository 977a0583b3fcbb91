"""Filters over time against a Kalman smoother, closed forms, and the One-Euro filter as its paper prints it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.film.filters import (
    OneEuro,
    OneEuroRotations,
    gain,
    nearest_rotations,
    smoothed,
    smoothed_robustly,
    smoothed_rotations,
)


def kalman_smoothed(values: np.ndarray, weight: np.ndarray, step_s: float, cutoff_hz: float) -> np.ndarray:
    """Forward filter and backward recursion, one number, even steps: positions at now and before, diffuse at first."""
    move, see = np.array([[2.0, -1.0], [1.0, 0.0]]), np.array([[1.0, 0.0]])
    # |x''|^2 dt / (2 pi f)^4: the second difference has this variance
    noise = np.diag([(2 * math.pi * cutoff_hz) ** 4 * step_s**3, 0.0])
    state, spread = np.zeros(2), np.eye(2) * 1e7
    filtered, expected = [], []
    for k, (value, w) in enumerate(zip(values, weight, strict=True)):
        if k:
            state, spread = move @ state, move @ spread @ move.T + noise
        expected.append((state, spread))
        if w > 0:
            share = step_s * (0.5 if k in (0, len(values) - 1) else 1.0)
            trust = spread @ see.T / (see @ spread @ see.T + 1 / (w * share))
            state, spread = state + trust[:, 0] * (value - state[0]), spread - trust @ see @ spread
        filtered.append((state, spread))
    smooth = [filtered[-1][0]]
    for k in range(len(values) - 2, -1, -1):
        back = filtered[k][1] @ move.T @ np.linalg.inv(expected[k + 1][1])
        smooth.append(filtered[k][0] + back @ (smooth[-1] - expected[k + 1][0]))
    return np.array(smooth[::-1])[:, 0]


def test_the_smoother_is_kalmans_forward_and_backward() -> None:
    rng = np.random.default_rng(0)
    values, weight = np.cumsum(rng.standard_normal(60)), rng.uniform(0.2, 3, 60)
    weight[20:26] = 0  # a short loss
    ours = smoothed(values[:, None], weight, np.arange(60) / 30, 4.0)[:, 0]
    np.testing.assert_allclose(ours, kalman_smoothed(values, weight, 1 / 30, 4.0), atol=2e-3)


@pytest.mark.parametrize("rate", [30.0, 60.0, 240.0])
def test_the_cutoff_holds_at_any_rate_and_at_uneven_times(rate: float) -> None:
    rng = np.random.default_rng(1)
    times = np.arange(0, 8, 1 / rate) + rng.uniform(0, 0.3 / rate, round(8 * rate))
    wave = np.sin(2 * np.pi * 2.0 * times)
    middle = (times > 2) & (times < 6)
    result = smoothed(wave[:, None], np.ones(len(times)), times, 2.0)[:, 0]
    assert result[middle] @ wave[middle] / (wave[middle] @ wave[middle]) == pytest.approx(0.5, abs=0.02)
    line = 3 - 2 * times
    np.testing.assert_allclose(
        smoothed(line[:, None], rng.uniform(0, 1, len(times)), times, 2.0)[:, 0], line, atol=1e-3
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_frames_are_no_special_case(count: int) -> None:
    values = np.arange(3.0 * count).reshape(count, 3)
    np.testing.assert_allclose(smoothed_robustly(values, np.ones(count), np.arange(count) / 30, 3.0), values, atol=1e-6)


def test_rotations_turn_evenly_through_noise_losses_and_a_glitch() -> None:
    rng = np.random.default_rng(2)
    times = np.arange(90) / 30
    base, axis = Rotation.random(random_state=rng), np.array([0.6, 0.0, 0.8])
    truth = Rotation.from_rotvec(times[:, None] * 3.0 * axis) * base  # 3 rad/s, beyond half a turn
    noise = Rotation.from_rotvec(0.1 * rng.standard_normal((90, 3)))
    observed, weight = (noise * truth).as_matrix(), np.ones(90)
    observed[40] = (Rotation.from_rotvec([2.5, 0, 0]) * truth[40]).as_matrix()  # one frame sees another hand
    observed[60:66], weight[60:66] = np.eye(3), 0.0
    result = Rotation.from_matrix(smoothed_rotations(observed, weight, times, 2.0))
    apart = (result * truth.inv()).magnitude()
    assert np.sqrt((apart**2).mean()) < 0.07 and apart[40] < 0.1 and apart[60:66].max() < 0.15
    turn = Rotation.random(random_state=rng).as_matrix()
    turned = smoothed_rotations(turn @ observed, weight, times, 2.0)
    np.testing.assert_allclose(turned, turn @ result.as_matrix(), atol=1e-7)
    even = smoothed_rotations(truth.as_matrix(), np.ones(90), times, 2.0)
    np.testing.assert_allclose(even[20:70], truth.as_matrix()[20:70], atol=2e-3)


def test_the_nearest_rotation_is_one() -> None:
    matrices = np.random.default_rng(3).standard_normal((50, 3, 3))
    rotations = nearest_rotations(matrices)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)
    other = Rotation.random(2000, random_state=4).as_matrix()
    nearest = ((other[None] - matrices[:, None]) ** 2).sum((2, 3)).min(1)
    assert (((rotations - matrices) ** 2).sum((1, 2)) <= nearest + 1e-9).all()


def one_euro_of_the_paper(values, times, min_cutoff: float, beta: float, d_cutoff: float) -> list[float]:
    def alpha(cutoff: float, rate: float) -> float:
        tau, te = 1 / (2 * math.pi * cutoff), 1 / rate
        return 1 / (1 + tau / te)

    out, speed = [values[0]], 0.0
    for k in range(1, len(values)):
        rate = 1 / (times[k] - times[k - 1])
        dx = (values[k] - out[-1]) * rate
        a = alpha(d_cutoff, rate)
        speed = a * dx + (1 - a) * speed
        a = alpha(min_cutoff + beta * abs(speed), rate)
        out.append(a * values[k] + (1 - a) * out[-1])
    return out


def test_one_euro_is_the_papers_and_turns_as_it_moves() -> None:
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.uniform(0.02, 0.05, 50))
    values = np.cumsum(0.1 * rng.standard_normal(50))
    expected = one_euro_of_the_paper(values, times, 1.2, 0.5, 1.0)
    point, turns = OneEuro(1.2, 0.5), OneEuroRotations(np.array([1.2]), 0.5)
    moved = [float(point(np.array([v]), t)[0]) for v, t in zip(values, times, strict=True)]
    about = np.array([0.0, 0.6, 0.8])
    turned = [
        turns(Rotation.from_rotvec([v * about]).as_matrix(), t, np.ones(1)) for v, t in zip(values, times, strict=True)
    ]
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    np.testing.assert_allclose([Rotation.from_matrix(r).as_rotvec()[0] @ about for r in turned], expected, atol=1e-9)


def test_an_unsure_observation_moves_a_filter_less() -> None:
    assert gain(2.0, 1 / 30) == pytest.approx(1 / (1 + 30 / (4 * math.pi)))
    assert gain(2.0, 1 / 30, 0.25) < 0.4 * gain(2.0, 1 / 30) and gain(2.0, 1 / 30, 0.0) == 0
