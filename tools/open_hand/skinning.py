"""MANO's forward model in numpy: pose correctives, then linear blend skinning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.conventions import MANO_16_PARENTS

Array = NDArray[np.float64]


def skinned(vertices_m: Array, weights: Array, joints_m: Array, pose: Array, posedirs_m: Array | None = None) -> Array:
    """(V, 3) posed vertices; pose (15, 3) axis-angle of joints 1..15 in the rest frame, wrist unturned."""
    turns = Rotation.from_rotvec(np.concatenate([np.zeros((1, 3)), pose])).as_matrix()
    if posedirs_m is not None:
        vertices_m = vertices_m + posedirs_m @ (turns[1:] - np.eye(3)).ravel()
    world = np.tile(np.eye(4), (16, 1, 1))
    world[0, :3, 3] = joints_m[0]
    for joint in range(1, 16):
        parent = MANO_16_PARENTS[joint]
        world[joint, :3, :3] = world[parent, :3, :3] @ turns[joint]
        offset = joints_m[joint] - joints_m[parent]
        world[joint, :3, 3] = world[parent, :3, 3] + world[parent, :3, :3] @ offset
    from_rest = world[:, :3, 3] - np.einsum("jab,jb->ja", world[:, :3, :3], joints_m)
    rotation = np.einsum("vj,jab->vab", weights, world[:, :3, :3])
    return np.einsum("vab,vb->va", rotation, vertices_m) + weights @ from_rest
