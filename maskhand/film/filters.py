"""Temporal filters for values and rotations with observations of different reliability: over all frames, or causal.

A weight is the inverse variance of an observation, relative to that for which the cutoff is given: less reliable
observations are smoothed more. Times may be uneven.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array, Array64

ROUNDS = 3
OUTLIER = 3.0
"""Distance from the smooth curve, in typical distances, at which an observation's weight is halved (Cauchy weights)."""


def smoothed(values: Array, weight: Array, times_s: Array, cutoff_hz: float) -> Array64:
    """(T, C) observations with weights (T,) at increasing times (T,) -> (T, C), each from all observations.

    The result of a forward-backward Kalman smoother (Rauch, Tung, Striebel 1965) for a point whose acceleration is
    white noise, solved in one step: it minimizes the sum of dt w |x - y|^2 + dt |x''|^2 / (2 pi cutoff)^4, a
    pentadiagonal system (Whittaker 1923). With weights of 1 it halves a sine of frequency `cutoff_hz`. Weight 0: not
    observed, interpolated; the first and the last must be observed.
    """
    count = len(times_s)
    steps = np.diff(times_s)
    share = np.zeros(count)
    share[:-1] += steps / 2
    share[1:] += steps / 2
    share = share if count > 1 else np.ones(1)
    bands = np.zeros((3, count))
    bands[2] = share * weight
    if count > 2:
        before, after = steps[:-1], steps[1:]
        # second divided differences of three neighbors
        rows = 2 * np.stack([1 / before, -1 / before - 1 / after, 1 / after]) / (before + after)
        scale = (before + after) / 2 / (2 * np.pi * cutoff_hz) ** 4
        for k in range(3):
            for m in range(k, 3):
                bands[2 - (m - k), m : count - 2 + m] += scale * rows[k] * rows[m]
    return np.asarray(solveh_banded(bands, (share * weight)[:, None] * values))


def robust_weight(weight: Array, distance: Array) -> Array64:
    """(T,) weights for the next round, reduced for observations at a large distance (T,) from the smooth curve."""
    observed = weight > 0
    if not observed.any():
        return np.asarray(weight)
    typical = max(float(np.median(distance[observed])), 1e-9)
    return np.asarray(weight / (1 + (distance / (OUTLIER * typical)) ** 2))


def smoothed_robustly(values: Array, weight: Array, times_s: Array, cutoff_hz: float) -> Array64:
    """As `smoothed`, iterated a few times with less weight for outliers."""
    result, now = smoothed(values, weight, times_s, cutoff_hz), weight
    for _ in range(ROUNDS - 1):
        now = robust_weight(weight, np.linalg.norm(result - values, axis=1))
        result = smoothed(values, now, times_s, cutoff_hz)
    return result


def smoothed_rotations(rotmats: Array, weight: Array, times_s: Array, cutoff_hz: float) -> Array64:
    """(T, 3, 3) rotations with weights (T,) -> (T, 3, 3), as `smoothed_robustly`.

    The matrices are smoothed, and at each time the nearest rotation is taken (the chordal mean): no axis, sign or order
    of angles is preferred, and rotating all observations rotates the result.
    """
    return nearest_rotations(smoothed_robustly(rotmats.reshape(-1, 9), weight, times_s, cutoff_hz).reshape(-1, 3, 3))


def nearest_rotations(matrices: Array) -> Array64:
    """(..., 3, 3) -> the nearest rotations by the Frobenius norm."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., :, 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return np.asarray(u @ vt)


class OneEuro:
    """The One-Euro filter (Casiez, Roussel, Vogel 2012) of a point: smooths slow motion, hardly lags in fast motion."""

    def __init__(self, min_cutoff_hz: float, per_speed: float, speed_cutoff_hz: float = 1.0) -> None:
        """per_speed: the paper's beta, the increase of the cutoff in Hz per unit of speed."""
        self._min_hz, self._per_speed, self._speed_hz = min_cutoff_hz, per_speed, speed_cutoff_hz
        self._value: Array64 | None = None
        self._speed = np.zeros(0)
        self._time_s = 0.0

    def __call__(self, value: Array, time_s: float, weight: float = 1.0) -> Array64:
        """The filtered value (C,); all components have the same cutoff, from the length of the speed vector."""
        if self._value is None:
            self._value, self._speed, self._time_s = np.array(value, np.float64), np.zeros(len(value)), time_s
            return self._value
        step_s, self._time_s = time_s - self._time_s, time_s
        self._speed = self._speed + gain(self._speed_hz, step_s) * ((value - self._value) / step_s - self._speed)
        cutoff = self._min_hz + self._per_speed * float(np.linalg.norm(self._speed))
        self._value = self._value + gain(cutoff, step_s, weight) * (value - self._value)
        return self._value


class OneEuroRotations:
    """The One-Euro filter of J rotations, each with its own angular speed."""

    def __init__(self, min_cutoff_hz: Array, per_speed: float, speed_cutoff_hz: float = 1.0) -> None:
        """min_cutoff_hz (J,); per_speed: Hz per radian per second."""
        self._min_hz, self._per_speed, self._speed_hz = min_cutoff_hz, per_speed, speed_cutoff_hz
        self._rotmats: Array64 | None = None
        self._speed = np.zeros(0)
        self._time_s = 0.0

    def __call__(self, rotmats: Array, time_s: float, weight: Array) -> Array64:
        """(J, 3, 3) and weights (J,) -> (J, 3, 3), each moved along the shortest rotation towards its observation."""
        if self._rotmats is None:
            self._rotmats, self._time_s = np.array(rotmats, np.float64), time_s
            self._speed = np.zeros((len(rotmats), 3))
            return self._rotmats
        step_s, self._time_s = time_s - self._time_s, time_s
        turn = Rotation.from_matrix(np.swapaxes(self._rotmats, 1, 2) @ rotmats).as_rotvec()
        self._speed = self._speed + gain(self._speed_hz, step_s) * (turn / step_s - self._speed)
        cutoff = self._min_hz + self._per_speed * np.linalg.norm(self._speed, axis=1)
        share = gain(cutoff, step_s, weight)
        self._rotmats = self._rotmats @ Rotation.from_rotvec(share[:, None] * turn).as_matrix()
        return self._rotmats


def gain(cutoff_hz: float | Array, step_s: float, weight: float | Array = 1.0) -> Array64:
    """The gain of a first-order low-pass filter: the fraction by which it moves towards an observation.

    For weight 1 that of the One-Euro filter, a; else w a / (w a + 1 - a), the gain of a Kalman filter whose observation
    has 1 / w of the variance.
    """
    rate = 2 * np.pi * np.asarray(cutoff_hz) * step_s
    share = rate / (rate + 1)
    return np.asarray(weight * share / (weight * share + 1 - share))
