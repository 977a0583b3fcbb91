"""Predicted hands as they are published: in the camera frame, left hands mirrored back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import FINGERTIP_VERTICES, FINGERTIPS
from maskhand.placement import PlacedBy, image_cameras, place_hands
from maskhand.scoring.predictions import Predictions
from maskhand.shards.reader import ShardSample


def with_fingertips(joints: torch.Tensor, vertices: torch.Tensor, fingertips: Sequence[str | None]) -> torch.Tensor:
    """(B, 21, 3) joints whose fingertips are those of a dataset: per hand a key of FINGERTIP_VERTICES, None = as is."""
    joints = joints.clone()
    for name in {tip for tip in fingertips if tip is not None}:
        rows = torch.tensor([k for k, tip in enumerate(fingertips) if tip == name])
        joints[rows[:, None], torch.tensor(FINGERTIPS)] = vertices[rows][:, list(FINGERTIP_VERTICES[name])]
    return joints


def place(
    prediction: HandPrediction,
    failed: torch.Tensor,
    hands: HandBatch,
    rows: Sequence[ShardSample],
    crop_px: int,
    fingertips: Sequence[str | None],
    placed_by: PlacedBy,
) -> Predictions:
    """B predicted right hands in the camera frame, where `placement` puts them, with the set's fingertips."""
    placed = place_hands(prediction, hands, image_cameras([row.sample for row in rows]), crop_px, placed_by)
    joints = placed.to_camera(with_fingertips(prediction.joints_m, prediction.vertices_m, fingertips))
    invalid = failed.numpy()
    return Predictions(
        index=np.array([row.index for row in rows], np.int64),
        origin=tuple(row.sample.origin for row in rows),
        side=tuple(row.sample.side for row in rows),
        joints_cam_m=_without(invalid, joints),
        vertices_cam_m=_without(invalid, placed.to_camera(prediction.vertices_m)),
        joints_px=_without(invalid, placed.pixels(joints)),
        truth_cam_m=np.stack([_truth(row) for row in rows]),
    )


def _truth(row: ShardSample) -> Array:
    joints, valid = row.sample.joints_cam_m, row.sample.joints_3d_valid
    if joints is None:
        return np.full((21, 3), np.nan, np.float32)
    return joints if valid is None else np.where(valid[:, None], joints, np.float32(np.nan))


def _without(invalid: Array, values: Array) -> Array:
    values = values.astype(np.float32)
    values[invalid] = np.nan
    return values
