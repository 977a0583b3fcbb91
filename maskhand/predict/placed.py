"""Placement of predicted hands in camera space, as `PlacedHand` records."""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MIRROR_AXIS_ANGLE
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.placement import PlacedBy, place_hands
from maskhand.predict.records import PlacedHand


def place_predicted(
    prediction: HandPrediction, batch: HandBatch, K_px: Array, crop_px: int, placed_by: PlacedBy
) -> list[PlacedHand]:
    """The N hands in camera space, left ones mirrored back.

    prediction: in the axes of the images; batch: their crops of crop_px pixels; K_px: (N, 3, 3) image intrinsics.
    """
    left = batch.is_left.numpy()
    placed = place_hands(prediction, batch, K_px, crop_px, placed_by)
    vertices, joints = placed.to_camera(prediction.vertices_m), placed.to_camera(prediction.joints_m)
    joints_px = placed.pixels(joints)
    pose_aa = matrix_to_axis_angle(prediction.rotmats.double()).numpy()
    pose_aa = pose_aa * np.where(left[:, None, None], MIRROR_AXIS_ANGLE, 1.0)
    return [
        PlacedHand(
            pose_aa=pose_aa[k],
            betas=prediction.betas[k].numpy(),
            transl_cam_m=placed.translation_m[k],
            vertices_cam_m=vertices[k],
            joints_cam_m=joints[k],
            joints_px=joints_px[k],
            crop_camera=prediction.camera[k].numpy(),
            token_confidence_of_joints=prediction.token_confidence_of_joints[k].numpy(),
            tokens=prediction.tokens.ids[k].numpy(),
            token_confidence=prediction.tokens.confidence[k].numpy(),
            log_probability=float(prediction.log_probability[k]),
        )
        for k in range(len(left))
    ]
