"""Stored MANO parameters -> the one canonical form (`HandPose`): absolute axis-angle, meters, OpenCV camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from maskhand.adapters.quaternions import from_axis_angle, from_matrix, multiply, rotate, to_axis_angle
from maskhand.arrays import Array
from maskhand.catalog import DatasetSpec, ManoConvention
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, OPENPOSE_FROM_MANO_AND_TIPS, Side
from maskhand.hand.model_file import OPEN_HAND_FOLDER, HandModel, default_hand_path, load_hand_model
from maskhand.sample import HandPose

PALM = (0, 1, 5, 9, 13, 17)
"""The OpenPose joints that only shape and global orientation move: the wrist, and the first joint of each finger."""


@dataclass(frozen=True)
class ManoReader:
    """Converts parameters stored under a card's convention. Small and picklable; model files load on first use."""

    convention: ManoConvention
    right_path: str
    left_path: str

    def canonical(
        self,
        stored_pose: Array,
        betas: Array,
        side: Side,
        *,
        camera_from_stored: Array,
        origin_stored_m: Array | None = None,
        transl_m: Array | None = None,
        palm_cam_m: Mapping[int, Array] | None = None,
    ) -> HandPose | None:
        """Absolute pose in camera axes; None where the stored shape cannot be expressed with the hand model in use.

        stored_pose: (3 + n,) global orientation, then finger parameters. camera_from_stored: (3, 3) rotation from the
        stored frame to OpenCV axes; origin_stored_m: (3,) the camera's place in the stored frame. The translation comes
        from `transl_m` (3,) or, when only joints place the mesh, from `palm_cam_m`, annotated joints of PALM by their
        number (3,); the mesh lies in their middle.
        A left hand stays a left hand: its parameters are those of the mirror image of the right-hand model.
        """
        if side == "left" and not self.convention.left_shapedirs_fixed:
            return None
        rest = _rest_palm(self.right_path, betas)
        if side == "left":
            rest = rest * MIRROR_POINT
        wrist = rest[0]
        rotation = multiply(from_matrix(camera_from_stored), from_axis_angle(stored_pose[:3].tolist()))
        if transl_m is not None:
            # x_cam = C (R (x - J0) + J0 + t - c) = CR (x - J0) + J0 + t', solved for t'.
            origin = 0.0 if origin_stored_m is None else origin_stored_m
            transl = camera_from_stored @ (wrist + transl_m - origin) - wrist
        else:
            assert palm_cam_m, "either a translation or a joint places the mesh"
            posed = {
                joint: wrist + rotate(rotation, (rest[PALM.index(joint)] - wrist).tolist()) for joint in palm_cam_m
            }
            transl = np.mean([palm_cam_m[joint] - place for joint, place in posed.items()], axis=0)
        pose = np.empty((16, 3), np.float32)
        pose[0] = to_axis_angle(rotation)
        pose[1:] = self._fingers(stored_pose[3:], side)
        return HandPose(pose, betas.astype(np.float32), transl.astype(np.float32))

    def _fingers(self, stored: Array, side: Side) -> Array:
        """(n,) stored finger parameters -> (15, 3) absolute axis-angle."""
        if self.convention.pose == "pca":
            # The signs of principal components differ between the two official files.
            model = _model(self.left_path if side == "left" else self.right_path)
            stored = stored @ model.hands_components[: len(stored)]
        fingers = stored.reshape(15, 3)
        if self.convention.flat_hand_mean:
            return fingers
        mean = _model(self.right_path).hands_mean_aa
        return fingers + (mean * MIRROR_AXIS_ANGLE if side == "left" else mean)

    def digest(self) -> str:
        return _model(self.right_path).digest


def mano_reader(spec: DatasetSpec) -> tuple[ManoReader | None, tuple[str, ...]]:
    """The reader for a card, or None and a sentence when the hand model in use does not fit the card."""
    if spec.mano is None:
        return None, ()
    right = default_hand_path("right")
    if spec.mano.model == "mano" and right.parent == OPEN_HAND_FOLDER:
        note = (
            f"{spec.name}: its MANO parameters refer to the licensed model's mean pose and shapes and were left out; "
            "set MASKHAND_MANO_DIR to the folder with MANO_RIGHT.pkl and MANO_LEFT.pkl and build again to include them"
        )
        return None, (note,)
    return ManoReader(spec.mano, str(right), str(default_hand_path("left"))), ()


def _rest_palm(model_path: str, betas: Array) -> Array:
    """(6, 3) joints PALM of the shaped, unposed hand: `J_regressor (template + shapedirs betas)`."""
    mean, directions = _palm_shapes(model_path)
    return mean + directions @ betas


@lru_cache(maxsize=4)
def _palm_shapes(model_path: str) -> tuple[Array, Array]:
    """(6, 3) joints of the mean hand and (6, 3, 10) their directions; regressed once, not for every sample."""
    model = _model(model_path)
    regressor = model.j_regressor[[OPENPOSE_FROM_MANO_AND_TIPS[joint] for joint in PALM]]
    return regressor @ model.v_template_m, np.einsum("jv,vck->jck", regressor, model.shapedirs)


@lru_cache(maxsize=4)
def _model(path: str) -> HandModel:
    return load_hand_model(path)
