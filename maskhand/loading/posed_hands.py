"""Hands without image: known poses seen from random directions, with 2D keypoints as only input (`data.posed_hands`).

The network has to learn how 2D and 3D pose are related, and training hands with images are few. Poses without images
are plentiful and need no encoder pass: a hand of the pose sets, randomly rotated and placed before a camera, has exact
2D and 3D joints, from which `collate` simulates the detector's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.layer import ManoLayer
from maskhand.loading.augment import POSED_STREAM, Draws
from maskhand.loading.labels import Labels
from maskhand.loading.poses import PosePools

SIZE_PX = 1000
FOCAL_PX = 1000.0
DEPTH_M = (0.25, 1.2)
"""Range of the distance from the camera; its logarithm is uniform."""
_OFF_AXIS = 0.25
"""Largest distance of the joints' center from the middle of the picture, in focal lengths, along either axis."""


@dataclass(frozen=True)
class PosedHands:
    """A generator of posed hands."""

    pools: PosePools
    mano: ManoLayer

    def labels(self, seed: int, indices: Array) -> Labels:
        """The hands with global `indices` (B,); each is a pure function of the seed and its index."""
        draws = Draws(seed, indices, 8, POSED_STREAM)
        rows = self.pools.rows(draws.uniform()[:, 0], draws.uniform()[:, 0])
        rotmats = Rotation.from_rotvec(self.pools.poses.pose_aa[rows].reshape(-1, 3).astype(np.float64)).as_matrix()
        rotmats = rotmats.reshape(len(rows), -1, 3, 3)
        rotmats[:, 0] = _uniform_rotation(draws.uniform(columns=3))
        betas = self.pools.poses.betas[rows].astype(np.float64)
        with torch.no_grad():
            mesh = self.mano(torch.from_numpy(rotmats).float(), torch.from_numpy(betas).float())
        joints = mesh.joints_m.double().numpy()
        depth = np.exp(draws.uniform(*np.log(DEPTH_M)))
        center = np.concatenate([draws.uniform(-_OFF_AXIS, _OFF_AXIS, columns=2) * depth, depth], axis=1)
        joints = joints - joints.mean(axis=1, keepdims=True) + center[:, None]
        return _labels(joints, rotmats, betas)


def _labels(joints_m: Array, rotmats: Array, betas: Array) -> Labels:
    """The labels of hands with joints (B, 21, 3) before the camera, without detections."""
    batch = len(joints_m)
    joints_px = FOCAL_PX * joints_m[..., :2] / joints_m[..., 2:] + (SIZE_PX - 1) / 2
    seen, none = np.ones((batch, NUM_JOINTS)), np.zeros((batch, NUM_JOINTS))
    return Labels(
        is_left=np.zeros(batch, bool),
        size_px=np.full((batch, 2), SIZE_PX, np.int64),
        mirrored_from_image=np.tile(np.eye(2, 3), (batch, 1, 1)),
        box_xyxy_px=np.concatenate([joints_px.min(axis=1), joints_px.max(axis=1)], axis=1),
        joints_2d_px=joints_px,
        joints_2d_conf=seen,
        joints_3d_m=joints_m - joints_m[:, :1],
        joints_3d_valid=seen,
        pose_aa=Rotation.from_matrix(rotmats.reshape(-1, 3, 3)).as_rotvec().reshape(batch, -1, 3),
        betas=betas,
        has_mano=np.ones(batch),
        detected_px=np.zeros_like(joints_px),
        detected_conf=none,
        detected_z_px=none,
        detected_world_m=np.zeros_like(joints_m),
    )


def _uniform_rotation(uniform: Array) -> Array:
    """(B, 3) uniform numbers in 0..1 -> uniformly distributed rotations (B, 3, 3) (Shoemake 1992)."""
    first, second, third = uniform.T
    a, b, p, q = np.sqrt(1 - first), np.sqrt(first), 2 * np.pi * second, 2 * np.pi * third
    quaternion = np.stack([a * np.sin(p), a * np.cos(p), b * np.sin(q), b * np.cos(q)], axis=1)
    matrices: Array = Rotation.from_quat(quaternion).as_matrix()
    return matrices
