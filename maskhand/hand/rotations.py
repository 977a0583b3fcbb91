"""Rotations in torch: batched over any leading dimensions, differentiable also at the identity.

6D numbers are the first two **columns** of the matrix, one after the other (HaMeR's convention; pytorch3d's are rows).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3), by Rodrigues' formula."""
    angle_sq = axis_angle.square().sum(-1)[..., None, None]
    small = angle_sq < 1e-6
    # The square root has no gradient at zero: the closed form sees a harmless angle there and is not selected.
    angle = torch.where(small, torch.ones_like(angle_sq), angle_sq).sqrt()
    sine = torch.where(small, 1 - angle_sq / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - angle_sq / 24, 2 * (angle / 2).sin().square() / angle.square())
    cross = _cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * cross + cosine * (cross @ cross)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) radians, angle in 0..pi. Exact through quaternions, also near 0 and near pi."""
    quaternion = _matrix_to_quaternion(matrix)
    imaginary = quaternion[..., 1:]
    norm_sq = imaginary.square().sum(-1, keepdim=True)
    small = norm_sq < 1e-12
    norm = torch.where(small, torch.ones_like(norm_sq), norm_sq).sqrt()
    half_angle = torch.atan2(norm, quaternion[..., :1])
    return imaginary * torch.where(small, torch.full_like(norm, 2.0), 2 * half_angle / norm)


def rot6d_to_matrix(rot6d: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3): Gram-Schmidt on the two columns, the third is their cross product (Zhou et al. 2019)."""
    first, second = rot6d[..., :3], rot6d[..., 3:]
    x = functional.normalize(first, dim=-1)
    y = functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack((x, y, torch.linalg.cross(x, y, dim=-1)), dim=-1)


def matrix_to_rot6d(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6): the first column, then the second."""
    return matrix[..., :, :2].transpose(-1, -2).flatten(-2)


def geodesic_rad(a: Tensor, b: Tensor) -> Tensor:
    """Angle (...,) in radians, 0..pi, between rotations (..., 3, 3); accurate near zero where arccos is not."""
    relative = a.transpose(-1, -2) @ b
    skew = _skew_part(relative)
    sine_sq = skew.square().sum(-1)
    zero = sine_sq == 0
    sine = torch.where(zero, torch.ones_like(sine_sq), sine_sq).sqrt()
    sine = torch.where(zero, torch.zeros_like(sine), sine)
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def turn_hands(rotmats: Tensor, rotation: Tensor) -> Tensor:
    """Hands (B, 16, 3, 3) turned as a whole by rotations (B, 3, 3): their global orientation, the first, changes."""
    return torch.cat((rotation[:, None] @ rotmats[:, :1], rotmats[:, 1:]), dim=1)


def random_rotations(
    n: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """(n, 3, 3) uniformly distributed rotations (normalized Gaussian quaternions), drawn where `generator` lives."""
    place = generator.device if generator is not None else torch.device(device)
    quaternion = torch.randn(n, 4, generator=generator, dtype=dtype, device=place)
    return _quaternion_to_matrix(functional.normalize(quaternion, dim=-1)).to(device)


def _cross_matrix(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def _skew_part(matrix: Tensor) -> Tensor:
    """(..., 3): sin(angle) times the axis."""
    return 0.5 * torch.stack(
        (
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ),
        dim=-1,
    )


def _quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Unit quaternions (..., 4), real part first."""
    w, x, y, z = quaternion.unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 4) unit, real part first and not negative. Four formulas, each exact where its leading part is largest."""
    m = matrix
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    leading = torch.stack((1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22), dim=-1)
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = torch.stack(
        (
            torch.stack((leading[..., 0], a, b, c), dim=-1),
            torch.stack((a, leading[..., 1], d, e), dim=-1),
            torch.stack((b, d, leading[..., 2], f), dim=-1),
            torch.stack((c, e, f, leading[..., 3]), dim=-1),
        ),
        dim=-2,
    )
    best = leading.argmax(-1)[..., None, None].expand(*leading.shape[:-1], 1, 4)
    quaternion = functional.normalize(candidates.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
