"""Predictions as they are published: whole samples before the image's camera, left hands mirrored back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import FINGERTIP_VERTICES, FINGERTIPS, Side
from maskhand.hand.camera import assumed_camera
from maskhand.placement import CameraSource, place_hands
from maskhand.sample import HandSample
from maskhand.shards.reader import ShardSample

Array = np.ndarray


@dataclass(frozen=True)
class Predictions:
    """N hands of one predictor in the order of the set. OpenPose joints; OpenCV camera axes; meters; stored pixels."""

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
    """(N, 21, 2) float32, projections of `joints_cam_m`. NaN for a failed sample."""
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
    camera: CameraSource,
) -> Predictions:
    """Put B predicted right hands before their images' cameras, as `placement` does, with the set's fingertips."""
    placed = place_hands(prediction, hands, image_cameras(rows), crop_px, camera)
    joints = placed.to_camera(with_tips(prediction.joints_m, prediction.vertices_m, tips))
    lost = failed.numpy()
    return Predictions(
        index=np.array([row.index for row in rows], np.int64),
        origin=tuple(row.sample.origin for row in rows),
        side=tuple(row.sample.side for row in rows),
        joints_cam_m=_without(lost, joints),
        vertices_cam_m=_without(lost, placed.to_camera(prediction.vertices_m)),
        joints_px=_without(lost, placed.pixels(joints)),
        truth_cam_m=np.stack([_truth(row) for row in rows]),
    )


def image_camera(sample: HandSample) -> Array:
    """(3, 3) float64 K, pixels: the known camera, else the assumed one."""
    return assumed_camera(sample.image_size_px) if sample.camera is None else sample.camera.K_px.astype(np.float64)


def image_cameras(rows: Sequence[ShardSample]) -> Array:
    """(B, 3, 3) float64, `image_camera` of each."""
    return np.stack([image_camera(row.sample) for row in rows])


def _truth(row: ShardSample) -> Array:
    joints, valid = row.sample.joints_cam_m, row.sample.joints_3d_valid
    if joints is None:
        return np.full((21, 3), np.nan, np.float32)
    return joints if valid is None else np.where(valid[:, None], joints, np.float32(np.nan))


def _without(lost: Array, values: Array) -> Array:
    values = values.astype(np.float32)
    values[lost] = np.nan
    return values
