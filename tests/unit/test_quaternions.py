"""Rotations of one hand at a time agree with scipy's, from no rotation to several turns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.adapters.quaternions import from_axis_angle, from_matrix, multiply, rotate, to_axis_angle


@pytest.mark.parametrize("size", [0, 1e-9, 1e-5, 1e-3, 1, np.pi, 6])
def test_rotations_are_those_of_scipy(size: float) -> None:
    rng = np.random.default_rng(0)
    for camera in Rotation.random(100, rng):
        axis, point = rng.normal(size=3), rng.normal(size=3)
        vector = size * axis / np.linalg.norm(axis)
        expected = camera * Rotation.from_rotvec(vector)
        product = multiply(from_matrix(camera.as_matrix()), from_axis_angle(vector.tolist()))
        np.testing.assert_allclose(to_axis_angle(product), expected.as_rotvec(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(rotate(product, point.tolist()), expected.apply(point), rtol=0, atol=1e-12)
        alone = Rotation.from_matrix(Rotation.from_rotvec(to_axis_angle(from_axis_angle(vector.tolist()))).as_matrix())
        np.testing.assert_allclose((alone * Rotation.from_rotvec(vector).inv()).magnitude(), 0, atol=1e-7)
