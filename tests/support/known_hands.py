"""Hands whose truth is known: anatomically possible poses of the open hand before FreiHAND-like cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand.annotate.fit.observed import Observed, no_relative
from maskhand.hand.anatomy import to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.view import fit_view, sample_betas


@dataclass(frozen=True)
class KnownHands:
    """N right hands, camera axes, meters."""

    pose_aa: np.ndarray
    """(N, 16, 3)"""
    betas: np.ndarray
    """(N, 10)"""
    transl_m: np.ndarray
    """(N, 3)"""
    joints_m: np.ndarray
    """(N, 21, 3)"""
    vertices_m: np.ndarray
    """(N, 778, 3)"""
    K_px: np.ndarray
    """(N, 3, 3) of an image of 224 x 224."""
    joints_px: np.ndarray
    """(N, 21, 2)"""


def known_hands(count: int, seed: int, fingertip_vertices: str = "smplx") -> KnownHands:
    """Poses of the pose prior, any global orientation, betas within 2.5 deviations."""
    rng = np.random.default_rng(seed)
    pose = to_axis_angle(sample_poses(rng, count))
    pose[:, 0] = Rotation.random(count, random_state=rng).as_rotvec()
    betas = np.stack([sample_betas(rng) for _ in range(count)])
    joints, vertices = mesh(pose, betas, np.zeros((count, 3)), fingertip_vertices)
    views = [fit_view(points, rng) for points in joints]
    transl, K = np.stack([v.transl_m for v in views]), np.stack([v.K_px for v in views])
    joints, vertices = joints + transl[:, None], vertices + transl[:, None]
    return KnownHands(pose, betas, transl, joints, vertices, K, pixels(joints, K))


def mesh(
    pose_aa: np.ndarray, betas: np.ndarray, transl_m: np.ndarray, fingertip_vertices: str = "smplx"
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 21, 3) joints and (N, 778, 3) vertices by the product's layer, in float64."""
    layer = ManoLayer.from_default(fingertip_vertices=fingertip_vertices).double()
    with torch.no_grad():
        posed = layer.from_axis_angle(
            *(torch.from_numpy(np.asarray(a, np.float64)) for a in (pose_aa, betas, transl_m))
        )
    return posed.joints_m.numpy(), posed.vertices_m.numpy()


def pixels(points_m: np.ndarray, K_px: np.ndarray) -> np.ndarray:
    uvw = points_m @ K_px.swapaxes(1, 2)
    return uvw[..., :2] / uvw[..., 2:]


def seen_in_3d(joints_m: np.ndarray, weight: np.ndarray | None = None) -> Observed:
    """Joints (N, 21, 3) alone; all of them, or by weight (N, 21)."""
    nothing, ones = np.zeros(joints_m.shape[:2]), np.ones(joints_m.shape[:2])
    any_K = np.broadcast_to(np.eye(3), (len(joints_m), 3, 3))
    weight = ones if weight is None else weight
    keypoints = np.zeros((len(joints_m), 21, 2))
    return Observed(joints_m, weight, keypoints, nothing, any_K, *no_relative(len(joints_m)))


def seen_in_2d(keypoints_px: np.ndarray, K_px: np.ndarray) -> Observed:
    """Keypoints (N, 21, 2) alone, under cameras (N, 3, 3)."""
    nothing, ones = np.zeros(keypoints_px.shape[:2]), np.ones(keypoints_px.shape[:2])
    joints = np.zeros((len(keypoints_px), 21, 3))
    return Observed(joints, nothing, keypoints_px, ones, K_px, *no_relative(len(keypoints_px)))
