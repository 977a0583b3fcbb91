"""Pose correctives that keep a bent knuckle's palm side from passing through itself.

Linear blend skinning folds the flesh inside a bend through the flesh opposite. Each joint gets one
displacement field, driven by 1 - cos(flexion): nothing near the flat hand, full at a right angle. It is fitted
so that skin that starts on one side of a joint stays on its side of the plane that bisects the bend.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from maskhand.conventions import MANO_16_PARENTS
from tools.open_hand.skeleton import Skeleton

Array = NDArray[np.float64]

FIT_ANGLES_DEG = (50.0, 70.0, 90.0, 105.0)
REACH_MM = 26.0
# Skin near the fold stops this far from the bisecting plane, so that the two sides do not touch.
GAP_MM = 0.4
STIFFNESS = 0.05
WEIGHT_DECAY = 0.002
ROUNDS = 12
NEGLIGIBLE_MM = 0.02


def fit_posedirs(vertices_m: Array, faces: NDArray[np.int64], weights: Array, bones: Skeleton) -> Array:
    """(V, 3, 135) correctives per entry of (R - I) of joints 1..15, row-major, as MANO's."""
    posedirs = np.zeros((len(vertices_m), 3, 15, 3, 3))
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    for joint in range(1, 16):
        if joint == 13:
            continue  # the thumb's saddle joint presses the thumb on the palm: a contact, not a fold
        field = _fold_field(vertices_m, edges, weights, bones, joint)
        field[np.linalg.norm(field, axis=1) < NEGLIGIBLE_MM / 1000.0] = 0.0
        posedirs[:, :, joint - 1] = field[:, :, None, None] * _bend_feature(bones.axes[joint])
    return posedirs.reshape(len(vertices_m), 3, 135)


def _bend_feature(axes: Array) -> Array:
    """(3, 3) M such that sum(M * (R - I)) is 1 - cos(angle) of a flexion and 0 for a pure abduction or twist."""
    twist, flexion, abduction = (np.outer(a, a) for a in axes)
    return 0.5 * (flexion - abduction - twist)


def _fold_field(vertices_m: Array, edges: NDArray[np.int64], weights: Array, bones: Skeleton, joint: int) -> Array:
    """(V, 3) displacement, meters, in the rest pose at 1 - cos(flexion) = 1, for one joint."""
    twist, flexion, abduction = bones.axes[joint]
    offset = vertices_m - bones.joints_m[joint]
    moving = _moved_share(weights, joint)
    region = np.flatnonzero((np.linalg.norm(offset, axis=1) < REACH_MM / 1000.0) & (_chain_share(weights, joint) > 0.3))
    index = np.full(len(vertices_m), -1)
    index[region] = np.arange(len(region))
    axial, height = offset[region] @ twist, offset[region] @ abduction
    side = np.sign(axial)
    inside = height < 0.0
    local = edges[(index[edges] >= 0).any(1)]
    laplacian = _stretch_energy(local, index, vertices_m, len(region))
    eye = sparse.identity(3)
    base = sparse.kron(STIFFNESS * laplacian + WEIGHT_DECAY * sparse.identity(len(region)), eye).tocsc()
    field = np.zeros((len(region), 3))
    for _ in range(ROUNDS):
        system, target = base.copy(), np.zeros(3 * len(region))
        for angle in np.deg2rad(FIT_ANGLES_DEG):
            turn = Rotation.from_rotvec(angle * flexion).as_matrix()
            blend = (1.0 - moving[region])[:, None, None] * np.eye(3) + moving[region][:, None, None] * turn
            normal = Rotation.from_rotvec(0.5 * angle * flexion).apply(twist)
            gain = (1.0 - np.cos(angle)) * np.einsum("nab,a->nb", blend, normal)
            clearance = side * np.einsum("nab,nb,a->n", blend, offset[region], normal)
            need = np.minimum(GAP_MM / 1000.0, np.abs(axial))
            lacking = need - clearance - side * (gain * field).sum(1)
            active = np.flatnonzero(inside & (lacking > 0.0))
            rows = sparse.csr_matrix(
                (
                    (side[:, None] * gain)[active].ravel(),
                    (np.repeat(np.arange(len(active)), 3), (3 * active[:, None] + np.arange(3)).ravel()),
                ),
                shape=(len(active), 3 * len(region)),
            )
            system = system + rows.T @ rows
            target += rows.T @ (need - clearance)[active]
        field = spsolve(system.tocsc(), target).reshape(-1, 3)
    out = np.zeros_like(vertices_m)
    out[region] = field
    return out


def _moved_share(weights: Array, joint: int) -> Array:
    """(V,) how much of each vertex turns with the joint: its own weight and that of all its descendants."""
    return np.asarray(weights[:, [j for j in range(16) if _descends(j, joint)]].sum(1))


def _chain_share(weights: Array, joint: int) -> Array:
    """(V,) the part of each vertex that belongs to the two bones meeting in the joint."""
    return np.asarray(weights[:, joint] + weights[:, max(MANO_16_PARENTS[joint], 0)])


def _descends(joint: int, ancestor: int) -> bool:
    while joint > ancestor:
        joint = MANO_16_PARENTS[joint]
    return joint == ancestor


def _stretch_energy(
    edges: NDArray[np.int64], index: NDArray[np.int64], vertices_m: Array, size: int
) -> sparse.csc_matrix:
    """Graph Laplacian on the region; edges leaving it tie its border to zero displacement."""
    i, j = index[edges].T
    tie = 0.004 / np.linalg.norm(vertices_m[edges[:, 0]] - vertices_m[edges[:, 1]], axis=1)
    both = (i >= 0) & (j >= 0)
    diagonal = np.bincount(i[i >= 0], tie[i >= 0], minlength=size) + np.bincount(j[j >= 0], tie[j >= 0], minlength=size)
    off = sparse.coo_matrix(
        (np.r_[tie[both], tie[both]], (np.r_[i[both], j[both]], np.r_[j[both], i[both]])), shape=(size, size)
    )
    return (sparse.diags(diagonal) - off).tocsc()
