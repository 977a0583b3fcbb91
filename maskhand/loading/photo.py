"""The batch of the hands in one photo, made by the same code as training and evaluation batches."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.batch import HandBatch
from maskhand.config import DataConfig
from maskhand.conventions import Side
from maskhand.loading.collate import make_batch
from maskhand.loading.labels import stack_labels
from maskhand.sample import Camera, HandSample
from maskhand.shards.sidecar_records import DetectedKeypoints


def photo_batch(
    image_rgb: Array,
    boxes_xyxy_px: Array,
    sides: Sequence[Side],
    config: DataConfig,
    *,
    keypoints_px: Array | None = None,
    confidence: Array | None = None,
    z_px: Array | None = None,
    world_m: Array | None = None,
    K_px: Array | None = None,
) -> HandBatch:
    """One row per hand of a photo.

    image_rgb: (H, W, 3) uint8; boxes_xyxy_px: (N, 4); sides: N; keypoints_px (N, 21, 2) with confidence (N, 21): the
    detector's 2D poses, not mirrored; without them the network gets no 2D pose. z_px (N, 21), world_m (N, 21, 3): as in
    `DetectedKeypoints`, from a detector with depth. K_px (3, 3): intrinsics, if known. `index` of the batch is the
    number of the hand. Left hands are mirrored (`HandBatch`).
    """
    height, width = image_rgb.shape[:2]
    samples = [
        HandSample(
            key=f"hand-{k}",
            dataset="photo",
            image=b"",
            image_format="png",
            image_size_px=(width, height),
            side=side,
            box_xyxy_px=np.asarray(box, np.float32),
            camera=None if K_px is None else Camera(np.asarray(K_px, np.float64)),
        )
        for k, (box, side) in enumerate(zip(boxes_xyxy_px, sides, strict=True))
    ]
    detections: list[DetectedKeypoints | None] = [None] * len(samples)
    if keypoints_px is not None and confidence is not None:
        detections = [
            DetectedKeypoints(
                keypoints_px[k],
                confidence[k],
                z_px=None if z_px is None else z_px[k],
                world_m=None if world_m is None else world_m[k],
            )
            for k in range(len(samples))
        ]
    return make_batch(
        stack_labels(samples, detections, [None] * len(samples)),
        [cv2.cvtColor(image_rgb, cv2.COLOR_RGB2RGBA)] * len(samples),
        crop_px=config.crop_px,
        box_scale=config.box_scale,
        aspect=config.crop_aspect,
        keypoints="detected",
        upright=config.upright,
        index=np.arange(len(samples)),
    )
