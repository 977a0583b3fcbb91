"""Rotations against scipy, and their gradients where closed forms break down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from maskhand.hand import rotations


def random_vectors(n: int, seed: int = 0) -> torch.Tensor:
    """Axis-angle of every length from 1e-9 to just below pi."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    angles = torch.logspace(-9, np.log10(np.pi - 1e-7), n, dtype=torch.float64)
    return axes * angles[:, None]


def test_axis_angle_agrees_with_scipy():
    vectors = random_vectors(500)
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    matrices = rotations.axis_angle_to_matrix(vectors)
    np.testing.assert_allclose(matrices, expected, atol=1e-12)
    np.testing.assert_allclose(rotations.axis_angle_to_matrix(vectors.float()), expected, atol=1e-6)
    np.testing.assert_allclose(rotations.matrix_to_axis_angle(matrices), vectors, atol=1e-7)
    assert rotations.axis_angle_to_matrix(vectors.view(5, 100, 3)).shape == (5, 100, 3, 3)


def test_matrix_to_axis_angle_at_a_half_turn():
    axes = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [0.6, 0, -0.8], [0.48, -0.6, 0.64]])
    matrices = torch.tensor(Rotation.from_rotvec(np.pi * axes).as_matrix())
    vectors = rotations.matrix_to_axis_angle(matrices).numpy()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.pi, atol=1e-9)
    np.testing.assert_allclose(Rotation.from_rotvec(vectors).as_matrix(), matrices, atol=1e-9)


def test_rot6d_is_the_first_two_columns_and_orthonormalizes():
    matrices = rotations.random_rotations(50, torch.Generator().manual_seed(1), dtype=torch.float64)
    six = rotations.matrix_to_rot6d(matrices)
    torch.testing.assert_close(six[:, :3], matrices[:, :, 0])
    torch.testing.assert_close(six[:, 3:], matrices[:, :, 1])
    torch.testing.assert_close(rotations.rot6d_to_matrix(six), matrices)
    # Leading size 3 is where a cross product without `dim` picks the wrong axis.
    free = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    made = rotations.rot6d_to_matrix(free)
    torch.testing.assert_close(made @ made.mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(made), torch.ones(3, dtype=torch.float64))


def test_geodesic_agrees_with_scipy():
    a = Rotation.random(200, random_state=0)
    b = a * Rotation.from_rotvec(random_vectors(200).numpy())
    angles = rotations.geodesic_rad(torch.tensor(a.as_matrix()), torch.tensor(b.as_matrix()))
    np.testing.assert_allclose(angles, (a.inv() * b).magnitude(), atol=1e-8)


def test_random_rotations_are_uniform_and_seeded():
    matrices = rotations.random_rotations(20000, torch.Generator().manual_seed(0), dtype=torch.float64)
    again = rotations.random_rotations(20000, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(matrices, again)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand_as(matrices))
    assert matrices.mean(0).abs().max() < 0.02
    angles = rotations.geodesic_rad(matrices, torch.eye(3, dtype=torch.float64))
    # Haar measure on SO(3): the angle has mean pi / 2 + 2 / pi.
    assert abs(angles.mean().item() - (np.pi / 2 + 2 / np.pi)) < 0.02


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e-2, 1.0])
def test_gradients_exist_everywhere(scale):
    base = torch.tensor([[0.3, -0.5, 0.8], [1.0, 0.1, 0.2]], dtype=torch.float64) * scale
    vectors = base.requires_grad_()
    assert torch.autograd.gradcheck(rotations.axis_angle_to_matrix, vectors, atol=1e-5)
    assert torch.autograd.gradcheck(
        lambda v: rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(v)), vectors, atol=1e-5
    )
    six = rotations.matrix_to_rot6d(rotations.axis_angle_to_matrix(base.detach())).requires_grad_()
    assert torch.autograd.gradcheck(rotations.rot6d_to_matrix, six)
    matrices = rotations.axis_angle_to_matrix(base.detach()).requires_grad_()
    gradient = torch.autograd.grad(rotations.geodesic_rad(matrices, matrices.detach()).sum(), matrices)[0]
    assert torch.isfinite(gradient).all()
