"""Stored MANO parameters of conventions that no card of the catalog has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskhand.adapters.mano_pose import ManoReader
from maskhand.catalog import ManoConvention
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT
from maskhand.hand.model_file import OPEN_HAND_FOLDER
from support.published_layouts.hands import model, pose_hand

PCA = ManoConvention(
    pose="pca", flat_hand_mean=False, frame="camera", translation="metric", model="any", left_shapedirs_fixed=True
)
LEFT, RIGHT = (str(OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl") for side in ("LEFT", "RIGHT"))


def test_principal_components_of_a_left_hand_are_those_of_the_left_model() -> None:
    rng = np.random.default_rng(0)
    stored, betas, transl = rng.normal(0, 0.5, 3 + 12), rng.normal(0, 0.7, 10), np.array([0.1, 0.0, 0.6])
    left = model("left")
    fingers = left.hands_mean_aa.reshape(45) + stored[3:] @ left.hands_components[:12]
    truth = pose_hand("left", stored[:3], fingers, betas, transl)
    reader = ManoReader(PCA, RIGHT, LEFT)
    read = reader.canonical(stored, betas, "left", camera_from_stored=np.eye(3), transl_m=transl)
    assert read is not None
    pose = read.pose_aa * MIRROR_AXIS_ANGLE
    mirrored = pose_hand("right", pose[0], pose[1:], read.betas, read.transl_cam_m * MIRROR_POINT)
    np.testing.assert_allclose(mirrored.vertices_m * MIRROR_POINT, truth.vertices_m, atol=2e-6)
    wrong = replace(reader, left_path=RIGHT)
    other = wrong.canonical(stored, betas, "left", camera_from_stored=np.eye(3), transl_m=transl)
    assert other is not None and np.abs(other.pose_aa - read.pose_aa).max() > 0.1
