"""Rotations of one hand at a time agree with scipy's, from no turn at all to several."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.adapters.turns import after, turn_of_matrix, turn_of_vector, turned, vector_of_turn


@pytest.mark.parametrize("size", [0, 1e-9, 1e-5, 1e-3, 1, np.pi, 6])
def test_turns_are_those_of_scipy(size: float) -> None:
    rng = np.random.default_rng(0)
    for camera in Rotation.random(100, rng):
        axis, point = rng.normal(size=3), rng.normal(size=3)
        vector = size * axis / np.linalg.norm(axis)
        expected = camera * Rotation.from_rotvec(vector)
        turn = after(turn_of_matrix(camera.as_matrix()), turn_of_vector(vector.tolist()))
        np.testing.assert_allclose(vector_of_turn(turn), expected.as_rotvec(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(turned(turn, point.tolist()), expected.apply(point), rtol=0, atol=1e-12)
        alone = Rotation.from_matrix(Rotation.from_rotvec(vector_of_turn(turn_of_vector(vector.tolist()))).as_matrix())
        np.testing.assert_allclose((alone * Rotation.from_rotvec(vector).inv()).magnitude(), 0, atol=1e-7)
