"""The predictor to beat: always the mean hand of the training set.

Rotations are averaged as rotations (the matrix nearest to the mean matrix, the chordal mean), betas arithmetically.
Procrustes alignment removes the global orientation, so for the aligned metrics any value of it would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.conventions import NUM_BETAS, NUM_MANO_JOINTS
from maskhand.loading.poses import PosePool, mano_poses_by_shard


@dataclass(frozen=True)
class MeanPose:
    """The mean right hand of `count` training hands."""

    rotmats: np.ndarray
    """(16, 3, 3) float64, absolute MANO rotations, global orientation first."""
    betas: np.ndarray
    """(10,) float64."""
    count: int


def mean_pose_of_sets(sets: Mapping[str, float]) -> MeanPose:
    """The mean over the MANO targets of shard sets, given as URI -> weight of the set (as in `recipe.data.train`).

    Reads the `mano` sidecars only, never the images. Raises ShardError when a set or its sidecar is missing.
    """
    rotation_sum, beta_sum = np.zeros((NUM_MANO_JOINTS, 3, 3)), np.zeros(NUM_BETAS)
    total, count = 0.0, 0
    for uri, weight in sets.items():
        mean_rotation, mean_betas, number = _plain_mean(mano_poses_by_shard(uri))
        if number and weight > 0:
            rotation_sum += weight * mean_rotation
            beta_sum += weight * mean_betas
            total += weight
            count += number
    if not count:
        raise ValueError(f"no MANO targets in {', '.join(sets)}; run `maskhand annotate mano` on the training sets")
    return MeanPose(nearest_rotation(rotation_sum / total), beta_sum / total, count)


def nearest_rotation(matrices: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> the rotation matrix with the least Frobenius distance to each."""
    u, _, vt = np.linalg.svd(matrices)
    sign = np.sign(np.linalg.det(u @ vt))
    return (u * np.stack([np.ones_like(sign), np.ones_like(sign), sign], axis=-1)[..., None, :]) @ vt


def _plain_mean(shards: Iterable[PosePool]) -> tuple[np.ndarray, np.ndarray, int]:
    rotation_sum, beta_sum, count = np.zeros((NUM_MANO_JOINTS, 3, 3)), np.zeros(NUM_BETAS), 0
    for poses in filter(len, shards):
        matrices = Rotation.from_rotvec(poses.pose_aa.reshape(-1, 3).astype(np.float64)).as_matrix()
        rotation_sum += matrices.reshape(-1, NUM_MANO_JOINTS, 3, 3).sum(0)
        beta_sum += poses.betas.astype(np.float64).sum(0)
        count += len(poses)
    return rotation_sum / max(count, 1), beta_sum / max(count, 1), count
