"""Predictions as they are published: whole samples before the picture's camera, left hands mirrored back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import FINGERTIP_VERTICES, FINGERTIPS, MIRROR_POINT, Side
from maskhand.hand.camera import assumed_camera, crop_camera_to_full, project_crop
from maskhand.loading.crop import apply_affine
from maskhand.sample import HandSample
from maskhand.shards.reader import ShardSample

Array = np.ndarray


@dataclass(frozen=True)
class Predictions:
    """N hands of one predictor in the order of the set. OpenPose joints; OpenCV camera axes; metres; stored pixels."""

    index: Array
    """(N,) int64 position in the shard set."""
    origin: tuple[dict[str, Any], ...]
    """The dataset's own ids, see `HandSample.origin`."""
    side: tuple[Side, ...]
    joints_cam_m: Array
    """(N, 21, 3) float32; depth is relative where the camera is unknown. NaN for a failed sample."""
    vertices_cam_m: Array
    """(N, 778, 3) float32, alike."""
    joints_px: Array
    """(N, 21, 2) float32, projected by the crop camera. NaN for a failed sample."""
    truth_cam_m: Array
    """(N, 21, 3) float32 annotated joints; NaN where a joint is not annotated."""

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            is_array = isinstance(values[0], np.ndarray)
            joined[field.name] = np.concatenate(values) if is_array else tuple(v for value in values for v in value)
        return cls(**joined)

    def __len__(self) -> int:
        return len(self.index)


def with_tips(joints: torch.Tensor, vertices: torch.Tensor, tips: Sequence[str | None]) -> torch.Tensor:
    """(B, 21, 3) joints whose fingertips are those of a dataset: per hand a key of FINGERTIP_VERTICES, None = as is."""
    joints = joints.clone()
    for name in {tip for tip in tips if tip is not None}:
        rows = torch.tensor([k for k, tip in enumerate(tips) if tip == name])
        joints[rows[:, None], torch.tensor(FINGERTIPS)] = vertices[rows][:, list(FINGERTIP_VERTICES[name])]
    return joints


def place(
    prediction: HandPrediction,
    failed: torch.Tensor,
    hands: HandBatch,
    rows: Sequence[ShardSample],
    crop_px: int,
    tips: Sequence[str | None],
) -> Predictions:
    """Put B predicted right hands before their pictures' cameras (`picture_camera`), as they are seen there."""
    left = hands.is_left.numpy()
    size = hands.image_size_px.numpy()
    translation = before_cameras(prediction, hands, rows, crop_px)
    mirror = np.where(left[:, None, None], MIRROR_POINT, 1.0)
    joints = with_tips(prediction.joints_m, prediction.vertices_m, tips)
    points_px = (project_crop(joints, prediction.camera).double().numpy() + 0.5) * crop_px
    image_from_crop = np.linalg.inv(_square(hands.crop_from_image.numpy()))[:, :2]
    points_px = apply_affine(image_from_crop, points_px)
    points_px[left, :, 0] = size[left, :1] - 1 - points_px[left, :, 0]
    lost = failed.numpy()

    def shown(points: torch.Tensor) -> Array:
        return _without(lost, (points.double().numpy() + translation[:, None]) * mirror)

    return Predictions(
        index=np.array([row.index for row in rows], np.int64),
        origin=tuple(row.sample.origin for row in rows),
        side=tuple(row.sample.side for row in rows),
        joints_cam_m=shown(joints),
        vertices_cam_m=shown(prediction.vertices_m),
        joints_px=_without(lost, points_px),
        truth_cam_m=np.stack([_truth(row) for row in rows]),
    )


def picture_camera(sample: HandSample) -> Array:
    """(3, 3) float64 K, pixels: the known camera with one focal length, the mean of its two; else the assumed one."""
    if sample.camera is None:
        return assumed_camera(sample.image_size_px)
    focal, centre = np.diag(sample.camera.K_px)[:2].mean(), sample.camera.K_px[:2, 2]
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float64)


def before_cameras(prediction: HandPrediction, hands: HandBatch, rows: Sequence[ShardSample], crop_px: int) -> Array:
    """(B, 3) float64, metres: puts the right hands before their pictures' cameras (`picture_camera`), left hands'
    pictures mirrored."""
    left = hands.is_left.numpy()
    cameras = np.stack([picture_camera(row.sample) for row in rows])
    focal, centre = cameras[:, 0, 0], cameras[:, :2, 2]
    centre[left, 0] = hands.image_size_px.numpy()[left, 0] - 1 - centre[left, 0]
    return crop_camera_to_full(
        prediction.camera.double(), hands.crop_from_image, crop_px, torch.from_numpy(focal), torch.from_numpy(centre)
    ).numpy()


def _truth(row: ShardSample) -> Array:
    joints, valid = row.sample.joints_cam_m, row.sample.joints_3d_valid
    if joints is None:
        return np.full((21, 3), np.nan, np.float32)
    return joints if valid is None else np.where(valid[:, None], joints, np.float32(np.nan))


def _without(lost: Array, values: Array) -> Array:
    values = values.astype(np.float32)
    values[lost] = np.nan
    return values


def _square(affine: Array) -> Array:
    """(B, 2, 3) -> (B, 3, 3)."""
    return np.concatenate([affine, np.tile([[[0.0, 0.0, 1.0]]], (len(affine), 1, 1))], axis=1)
