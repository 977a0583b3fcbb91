"""Hand poses as body models take them: SMPL-X and SMPL-H, by the arguments of smplx's classes.

Their `right_hand_pose` and `left_hand_pose` are MANO's fifteen joints in MANO's order and signs, each side's own: a
left hand is not mirrored. By default they are relative to MANO's mean pose (`flat_hand_mean=False`), subtracted from
axis-angle vectors, not as a rotation; with `use_pca` they are coefficients of MANO's components. A body model has no
`global_orient` of a hand: its wrist is a joint of the body, turned relative to the elbow,

    wrist pose = (rotation of the elbow in the camera)^T @ (rotation of MANO's global_orient),

and its place follows from the body. Its shape has betas of its own; MANO's mean nothing to it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import MIRROR_AXIS_ANGLE, Side
from maskhand.hand.model_file import HandModel, HandModelError, default_hand_path, load_hand_model

Body = Literal["smplx", "smplh"]


@dataclass(frozen=True)
class HandPoseSpace:
    """How a body model reads the pose of one hand."""

    mean_aa: Array
    """(15, 3) radians, what it adds to a pose; zero for `flat_hand_mean=True`."""
    components: Array | None
    """(C, 45) rows over axis-angle, C of MANO's principal components; None: poses are axis-angle themselves."""

    def encode(self, hand_pose_aa: Array) -> Array:
        """(..., 15, 3) absolute axis-angle, radians, flat hand = zero -> (..., 45), or the (..., C) coefficients that
        come nearest in least squares."""
        pose = np.asarray(hand_pose_aa, np.float64) - self.mean_aa
        flat = pose.reshape(*pose.shape[:-2], 45)
        return flat if self.components is None else flat @ np.linalg.pinv(self.components)

    def decode(self, pose: Array) -> Array:
        """(..., 45) or (..., C) -> (..., 15, 3) absolute axis-angle, radians."""
        flat = np.asarray(pose, np.float64)
        flat = flat if self.components is None else flat @ self.components
        return flat.reshape(*flat.shape[:-1], 15, 3) + self.mean_aa


@dataclass(frozen=True)
class BodyConvention:
    """The body model whose arguments hand poses are to be."""

    body: Body
    components: int | None = None
    """`num_pca_comps` with `use_pca`; None: axis-angle vectors."""

    def __post_init__(self) -> None:
        """Raises HandModelError for other than 1 to 45 components, FileNotFoundError where a model file lacks."""
        both: tuple[Side, Side] = ("right", "left")
        for side in both:
            hand_pose_space(side, components=self.components)


def hand_pose_space(side: Side, flat_hand_mean: bool = False, components: int | None = None) -> HandPoseSpace:
    """As smplx's `flat_hand_mean` and, for `use_pca`, `num_pca_comps`, with the hand models in use.

    A left hand's mean pose is the right one's mirror image; its components are those of MANO_LEFT.pkl, as in published
    body models. Raises FileNotFoundError where that file is missing, HandModelError for other than 1 to 45 components.
    """
    if components is not None and not 1 <= components <= 45:
        raise HandModelError(f"{components} principal components of the hand's pose; expected 1 to 45")
    signs = MIRROR_AXIS_ANGLE if side == "left" else np.ones(3)
    mean = np.zeros((15, 3)) if flat_hand_mean else _model("right").hands_mean_aa * signs
    return HandPoseSpace(mean, None if components is None else _model(side).hands_components[:components])


def body_hand_json(pose_aa: Array, side: Side, convention: BodyConvention) -> dict[str, Any]:
    """What smplx's SMPLX and SMPLH take for a hand with MANO pose (16, 3), absolute, radians; `argument` is its name.

    `wrist_global_orient` is the wrist's orientation in the camera, from which the body's wrist joint follows (above).
    """
    pose = hand_pose_space(side, components=convention.components).encode(pose_aa[1:])
    return {
        "body": convention.body,
        "argument": f"{side}_hand_pose",
        "hand_pose": (np.round(pose, 6) + 0.0).tolist(),
        "flat_hand_mean": False,
        "use_pca": convention.components is not None,
        "num_pca_comps": convention.components,
        "wrist_global_orient": (np.round(np.asarray(pose_aa[0], np.float64), 6) + 0.0).tolist(),
    }


def _model(side: Side) -> HandModel:
    return _loaded(str(default_hand_path(side)))


@functools.lru_cache(maxsize=2)
def _loaded(path: str) -> HandModel:
    return load_hand_model(path)
