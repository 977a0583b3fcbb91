"""Images taken through a lens that bends straight lines: Brown's model, in OpenCV's order of coefficients."""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array
from maskhand.sample import Camera


def distort(points: Array, lens: Array) -> Array:
    """(N, 2) pinhole coordinates x/z, y/z -> where the lens puts them; `lens` is k1, k2, p1, p2, k3."""
    k1, k2, p1, p2, k3 = lens
    x, y = points[:, 0], points[:, 1]
    r2 = x**2 + y**2
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2),
            y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y,
        ],
        axis=1,
    )


def project(points_cam_m: Array, K_px: Array, lens: Array) -> Array:
    """(N, 3) in camera axes -> (N, 2) pixels of the image as it was taken."""
    bent = distort(points_cam_m[:, :2] / points_cam_m[:, 2:], lens)
    return bent @ K_px[:2, :2].T + K_px[:2, 2]


def local_pinhole(center_cam_m: Array, K_px: Array, lens: Array) -> Camera:
    """A pinhole without skew that agrees with the bent image at one point, and around it to first order on each axis.

    A hand is small in such an image, so that this camera holds for all of it within a pixel or two, while no pinhole
    holds for the whole image.
    """
    step = 1e-4
    x, y = center_cam_m[:2] / center_cam_m[2]
    around = np.array([[x, y], [x + step, y], [x - step, y], [x, y + step], [x, y - step]])
    u, v = (distort(around, lens) @ K_px[:2, :2].T + K_px[:2, 2]).T
    fx, fy = (u[1] - u[2]) / (2 * step), (v[3] - v[4]) / (2 * step)
    return Camera(np.array([[fx, 0, u[0] - fx * x], [0, fy, v[0] - fy * y], [0, 0, 1]]))
