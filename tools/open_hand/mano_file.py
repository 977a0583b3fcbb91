"""The open hand as a MANO-format pickle: vertex order, mirroring and a byte-reproducible writer."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from maskhand.conventions import MANO_16_PARENTS, MIRROR_AXIS_ANGLE, MIRROR_POINT

Array = NDArray[np.float64]

# Vertex ids that tools hard-code for MANO. First the tip itself (smplx), then ids other datasets use for the same
# tip (FreiHAND 555/672, HO-3D 333/444, manopth 745/317/445/556/673): they get neighbors of the tip.
TIP_IDS = {
    "index": (320, 317, 333),
    "middle": (443, 444, 445),
    "little": (671, 672, 673),
    "ring": (554, 555, 556),
    "thumb": (744, 745),
}
# MANO's wrist opening, in the direction of its 16 rim edges; renderers close the hole with triangles over these ids.
RIM_IDS = (92, 38, 122, 118, 117, 119, 120, 108, 79, 78, 121, 214, 215, 279, 239, 234)


@dataclass(frozen=True)
class OpenHand:
    """Everything a MANO file holds, for one side; meters and radians, rest frame of that side."""

    vertices_m: Array  # (778, 3) flat pose
    faces: NDArray[np.int64]  # (1538, 3)
    weights: Array  # (778, 16)
    joint_regressor: Array  # (16, 778)
    shapedirs_m: Array  # (778, 3, 10) per standard deviation
    posedirs_m: Array  # (778, 3, 135) per unit of (R - I)
    hands_mean: Array  # (45,) axis-angle of the relaxed hand
    hands_components: Array  # (45, 45) orthonormal rows
    hands_coeffs: Array  # (P, 45)


def mirrored(hand: OpenHand) -> OpenHand:
    """The other hand: reflected in x, with the winding flipped so that faces still look outward."""
    flip_pose = np.tile(MIRROR_AXIS_ANGLE, 15)
    # R -> M R M changes the sign of the entries that couple x with y or z
    flip_feature = np.tile(np.outer(MIRROR_POINT, MIRROR_POINT).ravel(), 15)
    return replace(
        hand,
        vertices_m=hand.vertices_m * MIRROR_POINT,
        faces=hand.faces[:, [0, 2, 1]],
        shapedirs_m=hand.shapedirs_m * MIRROR_POINT[:, None],
        posedirs_m=hand.posedirs_m * MIRROR_POINT[:, None] * flip_feature,
        hands_mean=hand.hands_mean * flip_pose,
        hands_components=hand.hands_components * flip_pose,
    )


def mano_vertex_order(tips: dict[str, list[int]], rim: list[int], count: int) -> NDArray[np.int64]:
    """order[new id] = old id, with tips (tip first, then neighbors) and rim at MANO's ids, the rest ascending."""
    order = np.full(count, -1, dtype=np.int64)
    for finger, ids in TIP_IDS.items():
        order[list(ids)] = tips[finger][: len(ids)]
    order[list(RIM_IDS)] = rim
    order[order < 0] = np.setdiff1d(np.arange(count), order)
    return order


def write_mano_file(hand: OpenHand, path: Path) -> None:
    """Write the dictionary that MANO_RIGHT.pkl holds, as float32 (half the size; 1e-5 mm at a hand's scale)."""
    joints = hand.joint_regressor @ hand.vertices_m
    kintree = np.array([MANO_16_PARENTS, range(16)], dtype=np.int64)
    kintree[0, 0] = 2**32 - 1
    content = {
        "v_template": _compact(hand.vertices_m),
        "f": hand.faces.astype(np.uint32),
        "weights": _compact(hand.weights),
        "J_regressor": sparse.csc_matrix(hand.joint_regressor.astype(np.float32)),
        "J": _compact(joints),
        "kintree_table": kintree,
        "shapedirs": _compact(hand.shapedirs_m),
        "posedirs": _compact(hand.posedirs_m),
        "hands_mean": _compact(hand.hands_mean),
        "hands_components": _compact(hand.hands_components),
        "hands_coeffs": _compact(hand.hands_coeffs),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
    # numpy 2 writes its private module name; the public one is understood by numpy 1 and 2 alike, as MANO's own file is
    data = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")
    path.write_bytes(data)


def _compact(values: Array) -> NDArray[np.float32]:
    # adding zero turns the -0.0 of a mirrored array into 0.0
    return np.ascontiguousarray(values + 0.0, dtype=np.float32)
