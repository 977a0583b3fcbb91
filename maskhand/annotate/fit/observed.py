"""The fitter's input: observations of B hands, and the misfit of a state to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maskhand.annotate.fit.skeleton import NUM_PARAMETERS
from maskhand.arrays import Array64
from maskhand.conventions import NUM_JOINTS, OPENPOSE_FROM_MANO_AND_TIPS

_FROM_OPENPOSE = np.argsort(OPENPOSE_FROM_MANO_AND_TIPS)
MIN_DEPTH_M = 0.02
"""Points nearer to the camera are treated as this far away, to avoid division by small depths."""


@dataclass(frozen=True)
class Observed:
    """Joints and keypoints of B right hands, OpenPose-21 order, camera axes."""

    joints_m: Array64
    """(B, 21, 3)."""
    joint_weight: Array64
    """(B, 21) 0 to 1; 0 = not observed in 3D, its coordinates are ignored."""
    keypoints_px: Array64
    """(B, 21, 2)."""
    keypoint_weight: Array64
    """(B, 21) 0 to 1; 0 = not observed in the image."""
    K_px: Array64
    """(B, 3, 3) intrinsics for `keypoints_px`."""
    relative_m: Array64
    """(B, S, 21, 3) joints up to a translation, camera axes, from S sources: a detector's world landmarks, a network's
    hand. S may be 0."""
    relative_precision: Array64
    """(B, S, 21) per square meter: inverse variance of one coordinate; 0 = not given."""

    def __len__(self) -> int:
        return len(self.joints_m)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Observed:
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})

    def in_mano_order(self) -> Observed:
        """The same in the order of MANO's 16 joints followed by the tips, with zeros for unobserved points."""
        weights = {
            "joints_m": self.joint_weight,
            "keypoints_px": self.keypoint_weight,
            "relative_m": self.relative_precision,
        }
        points = {name: np.where(w[..., None] > 0, getattr(self, name), 0.0) for name, w in weights.items()}
        return replace(
            self,
            **{name: value[..., _FROM_OPENPOSE, :] for name, value in points.items()},
            joint_weight=self.joint_weight[:, _FROM_OPENPOSE],
            keypoint_weight=self.keypoint_weight[:, _FROM_OPENPOSE],
            relative_precision=self.relative_precision[..., _FROM_OPENPOSE],
        )

    @property
    def hand_px(self) -> Array64:
        """(B,) longer side of the box around the keypoints, at least 1; 1 if there are none."""
        seen = self.keypoint_weight[..., None] > 0
        low = np.where(seen, self.keypoints_px, np.inf).min(1)
        high = np.where(seen, self.keypoints_px, -np.inf).max(1)
        side = np.where(seen.any(1), high - low, 0.0).max(1, initial=0.0)
        return np.maximum(side, 1.0)


def no_relative(count: int) -> tuple[Array64, Array64]:
    """`relative_m` and `relative_precision` of hands without any source."""
    return np.zeros((count, 0, NUM_JOINTS, 3)), np.zeros((count, 0, NUM_JOINTS))


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one coordinate of the observations."""

    joint_m: Array64
    """(B,)"""
    keypoint_px: Array64
    """(B,)"""

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Noise:
        return Noise(self.joint_m[rows], self.keypoint_px[rows])


def project(points_m: Array64, K_px: Array64) -> tuple[Array64, Array64]:
    """(B, N, 3) points under (B, 3, 3) cameras -> (B, N, 2) pixels and (B, N, 2, 3) their derivatives."""
    uvw = points_m @ np.swapaxes(K_px, 1, 2)
    depth = np.maximum(uvw[..., 2:], MIN_DEPTH_M)
    pixels = uvw[..., :2] / depth
    return pixels, (K_px[:, None, :2] - pixels[..., None] * K_px[:, None, 2:]) / depth[..., None]


def misfit(points_m: Array64, seen: Observed, noise: Noise) -> Array64:
    """(B,) half the sum of squared residuals, in standard deviations."""
    total = 0.5 * (seen.joint_weight * ((points_m - seen.joints_m) ** 2).sum(2)).sum(1) / noise.joint_m**2
    if seen.keypoint_weight.any():
        pixels, _ = project(points_m, seen.K_px)
        apart = ((pixels - seen.keypoints_px) ** 2).sum(2)
        total = total + 0.5 * (seen.keypoint_weight * apart).sum(1) / noise.keypoint_px**2
    for source in range(seen.relative_m.shape[1]):
        precision = seen.relative_precision[:, source]
        apart = ((_centered(points_m - seen.relative_m[:, source], precision)) ** 2).sum(2)
        total = total + 0.5 * (precision * apart).sum(1)
    return np.asarray(total)


def _centered(values: Array64, weight: Array64) -> Array64:
    """Values (B, 21, ...) minus their weighted mean over the points; weight (B, 21)."""
    share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-9)
    share = share.reshape(*share.shape, *(1 for _ in values.shape[2:]))
    return np.asarray(values - (share * values).sum(1, keepdims=True))


def normal_equations(points_m: Array64, jacobian: Array64, seen: Observed, noise: Noise) -> tuple[Array64, Array64]:
    """Gauss-Newton's (B, 42, 42) matrix and (B, 42) gradient of `misfit`."""
    batch = len(points_m)
    matrix, gradient = np.zeros((batch, NUM_PARAMETERS, NUM_PARAMETERS)), np.zeros((batch, NUM_PARAMETERS))

    def add(rows: Array64, residual: Array64, weight: Array64) -> None:
        root = np.sqrt(weight)[..., None]
        flat = (rows * root[..., None]).reshape(batch, -1, NUM_PARAMETERS)
        turned = np.swapaxes(flat, 1, 2)
        matrix[...] += turned @ flat
        gradient[...] += (turned @ (residual * root).reshape(batch, -1, 1))[..., 0]

    if seen.joint_weight.any():
        add(jacobian, points_m - seen.joints_m, seen.joint_weight / noise.joint_m[:, None] ** 2)
    if seen.keypoint_weight.any():
        pixels, by_point = project(points_m, seen.K_px)
        weight = seen.keypoint_weight / noise.keypoint_px[:, None] ** 2
        add(by_point @ jacobian, pixels - seen.keypoints_px, weight)
    for source in range(seen.relative_m.shape[1]):
        precision = seen.relative_precision[:, source]
        if precision.any():  # centered, as a common translation is free
            apart = _centered(points_m - seen.relative_m[:, source], precision)
            add(_centered(jacobian, precision), apart, precision)
    return matrix, gradient
