"""Collation: labels and images -> HandBatch. Its fields are computed only here.

Everything is vectorized over the batch, except cutting the crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from maskhand.arrays import Array
from maskhand.batch import POSE_CHANNELS, HandBatch
from maskhand.geometry2d import apply_affine, box_center_px, compose, crop_affine
from maskhand.loading.augment import ImageAugmentation, KeypointAugmentation, erase
from maskhand.loading.crop import (
    Scratch,
    crop_side_px,
    cut_into,
    decode_for_crop,
    shrink_factor,
)
from maskhand.loading.degrade import PhotoEffects, degrade
from maskhand.loading.detector_errors import DEPTH_GAIN, DetectorErrors
from maskhand.loading.labels import Labels
from maskhand.loading.upright import UprightBoxes, upright_boxes


def place_crops(
    labels: Labels,
    box_scale: float,
    crop_px: int,
    aspect: float,
    augmentation: ImageAugmentation,
    upright: UprightBoxes | None = None,
) -> Array:
    """(B, 2, 3) float64 affines from the (mirrored, if left) images to the crops.

    upright: the boxes of hands turned upright, before the augmentation's rotation; None: hands are not turned upright.
    """
    if upright is None:
        box, center, rotation_rad = labels.box_xyxy_px, box_center_px(labels.box_xyxy_px), augmentation.rotation_rad
    else:
        box, center = upright.box_xyxy_px, upright.center_px
        rotation_rad = upright.turn_rad + augmentation.rotation_rad
    side = crop_side_px(box, box_scale, aspect)
    return crop_affine(center + augmentation.shift * side[:, None], side * augmentation.scale, rotation_rad, crop_px)


def cut_crops(
    images: Sequence[bytes | Array], labels: Labels, crop_from_image: Array, crop_px: int, aspect: float
) -> Array:
    """(B, S, aspect * S, 4) uint8: the columns of the crops that the network sees, as in `HandBatch.pixels`.

    images: encoded files or decoded RGBA images (H, W, 4) uint8, not mirrored.
    """
    affines = compose(crop_from_image, labels.mirrored_from_image)
    margin = round(crop_px * (1 - aspect) / 2)
    affines[:, 0, 2] -= margin
    width_px = crop_px - 2 * margin
    crops = np.empty((len(images), crop_px, width_px, 4), np.uint8)
    scratch = Scratch()
    for crop, image, affine, shrink in zip(crops, images, affines, shrink_factor(affines).tolist(), strict=True):
        if isinstance(image, bytes):
            image, affine, shrink = decode_for_crop(image, affine, shrink, scratch)
        cut_into(crop, image, affine, shrink)
    return crops


def input_pose(labels: Labels, crop_from_image: Array, crop_px: int, source: KeypointAugmentation | str) -> Array:
    """(B, 21, 7) the 2D pose that the network reads, as in `HandBatch.keypoints_2d`; missing joints are zeros.

    source: `detected`, `annotated` or `none` for evaluation, or the augmentation drawn for training. If that has
    `errors`, labels must be from `simulated_detections`, which replace the annotated pose.
    """
    detected, annotated = (make(labels, crop_from_image, crop_px) for make in (detected_pose, _annotated_pose))
    if isinstance(source, KeypointAugmentation):
        if source.errors is not None:
            annotated = detected
        annotated = np.take_along_axis(annotated, source.order[..., None], axis=1)
        annotated[..., :2] += source.noise
        use_detected = source.takes_detected(labels.detected_conf)
        pose = np.where(use_detected[:, None, None], detected, annotated)
        pose[..., 2] *= ~source.dropped
    elif source == "none":
        pose = np.zeros_like(annotated)
    else:
        pose = detected if source == "detected" else annotated
    return pose * (pose[..., 2:3] > 0)


def detected_pose(labels: Labels, crop_from_image: Array, crop_px: int) -> Array:
    """(B, 21, 7) the detector's pose, as in `HandBatch.keypoints_2d`, but joints with confidence 0 are not zeroed."""
    sides_per_px, turn = _similarity(crop_from_image, crop_px)
    points = to_crop(labels.detected_px, crop_from_image, crop_px)
    z = labels.detected_z_px * sides_per_px[:, None]
    world = labels.detected_world_m @ turn.transpose(0, 2, 1)
    return np.concatenate([points, labels.detected_conf[..., None], z[..., None], world], axis=2)


def simulated_detections(labels: Labels, errors: DetectorErrors, kept: Array) -> Labels:
    """The labels with detections replaced by simulated ones with these errors, which also place upright crops.

    kept (B,) bool: hands that keep their real detections.
    """
    pose = errors.added_to(true_pose(labels, _in_image(labels), 1))
    return _with_detections(labels, np.where(kept[:, None, None], detected_pose(labels, _in_image(labels), 1), pose))


def scaled_detections(labels: Labels, scale: Array) -> Labels:
    """The labels with the errors of their detections multiplied by `scale` (B,), for annotated joints.

    Unlike the error of a simulated detection, this error fits the image: a detector errs towards another plausible
    hand. Confidences are adapted as in `DetectorErrors.drawn`.
    """
    true, found = (make(labels, _in_image(labels), 1) for make in (true_pose, detected_pose))
    amount = scale[:, None, None]
    seen = labels.joints_2d_conf[..., None] > 0
    with_depth = seen & (labels.joints_3d_valid[..., None] > 0)
    known = np.concatenate([np.repeat(seen, 2, axis=2), seen, np.repeat(with_depth, 4, axis=2)], axis=2)
    scaled = true + amount * (found - true)
    scaled[..., 2] = found[..., 2] ** scale[:, None] * (found[..., 2] > 0)
    return _with_detections(labels, np.where(known, scaled, found))


def _with_detections(labels: Labels, pose: Array) -> Labels:
    """The labels with these detections (B, 21, 7), in image pixels as from `detected_pose` with `_in_image`."""
    return replace(
        labels,
        detected_px=pose[..., :2] + 0.5,
        detected_conf=pose[..., 2],
        detected_z_px=pose[..., 3],
        detected_world_m=pose[..., 4:],
    )


def _in_image(labels: Labels) -> Array:
    """(B, 2, 3) identity affines; with them and `crop_px` 1, crop coordinates are image pixels minus 0.5."""
    return np.tile(np.eye(2, 3), (len(labels.is_left), 1, 1))


def true_pose(labels: Labels, crop_from_image: Array, crop_px: int) -> Array:
    """(B, 21, 7) the output of an error-free detector for the annotated hand; with depth for annotated 3D joints.

    Depth is in the units of x and y, converted from meters by the ratio of the joints' spreads in both, and flattened
    like the detector's depth (`DEPTH_GAIN`).
    """
    pose = _annotated_pose(labels, crop_from_image, crop_px)
    pose[..., 4:] = labels.joints_3d_m @ _similarity(crop_from_image, crop_px)[1].transpose(0, 2, 1)
    known = (labels.joints_3d_valid * (labels.joints_2d_conf > 0))[..., None]
    seen, true = (_spread(points, known) for points in (pose[..., :2], pose[..., 4:6]))
    pose[..., 3] = DEPTH_GAIN * pose[..., 6] * np.sqrt(seen / np.maximum(true, 1e-12))[:, None]
    pose[..., 3:] *= known
    return pose


def _annotated_pose(labels: Labels, crop_from_image: Array, crop_px: int) -> Array:
    """(B, 21, 7) the annotated 2D pose, without depth."""
    points = to_crop(labels.joints_2d_px, crop_from_image, crop_px)
    depth = np.zeros((*points.shape[:2], POSE_CHANNELS - 3))
    return np.concatenate([points, labels.joints_2d_conf[..., None], depth], axis=2)


def _spread(points: Array, weight: Array) -> Array:
    """(B, K, n) points, (B, K, 1) weights -> (B,) weighted sum of squared distances from their mean."""
    mean = (points * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1)
    return ((points - mean) ** 2 * weight).sum(axis=(1, 2))


def _similarity(crop_from_image: Array, crop_px: int) -> tuple[Array, Array]:
    """(B, 2, 3) affines -> crop sides per image pixel (B,), rotations (B, 3, 3) in camera axes."""
    scale = np.sqrt(np.linalg.det(crop_from_image[:, :, :2]))
    turn = np.tile(np.eye(3), (len(scale), 1, 1))
    turn[:, :2, :2] = crop_from_image[:, :, :2] / scale[:, None, None]
    return scale / crop_px, turn


def to_crop(points_px: Array, crop_from_image: Array, crop_px: int) -> Array:
    """(B, K, 2) pixels of the (mirrored) images -> crop coordinates, -0.5..0.5 inside the crop."""
    return apply_affine(crop_from_image, points_px) / crop_px - 0.5


def make_batch(
    labels: Labels,
    images: Sequence[bytes | Array] | None,
    *,
    crop_px: int,
    box_scale: float,
    aspect: float = 0.75,
    keypoints: KeypointAugmentation | str,
    upright: bool = False,
    augmentation: ImageAugmentation | None = None,
    effects: PhotoEffects | None = None,
    index: Array | None = None,
    text_ids: Array | None = None,
) -> HandBatch:
    """Crop, augment and collate B hands.

    images: None for hands without image; keypoints: the source of `input_pose`; upright: turn crops and labels upright
    (`loading.upright`); index (B,): positions in an evaluation set; text_ids (B, W): captions (`maskhand.text`).
    """
    batch = len(labels.is_left)
    augmentation = ImageAugmentation.none(batch) if augmentation is None else augmentation
    if isinstance(keypoints, KeypointAugmentation):
        if keypoints.detected_scale is not None:
            labels = scaled_detections(labels, keypoints.detected_scale)
        if keypoints.errors is not None:
            labels = simulated_detections(labels, keypoints.errors, keypoints.takes_detected(labels.detected_conf))
    boxes = upright_boxes(labels, keypoints) if upright else None
    crop_from_image = place_crops(labels, box_scale, crop_px, aspect, augmentation, boxes)
    if images is None:
        crops = np.empty((0, crop_px, crop_px - 2 * round(crop_px * (1 - aspect) / 2), 4), np.uint8)
    else:
        crops = cut_crops(images, labels, crop_from_image, crop_px, aspect)
        erase(crops, augmentation)
    if effects is not None:
        degrade(crops, effects)
    rotation = _about_optical_axis(augmentation.rotation_rad + (0 if boxes is None else boxes.turn_rad))
    # scipy: at this size the many small operations of `hand.rotations` take three times as long.
    rotmats = Rotation.from_rotvec(labels.pose_aa.reshape(-1, 3)).as_matrix().reshape(batch, -1, 3, 3)
    rotmats[:, 0] = rotation @ rotmats[:, 0]
    joints_2d = to_crop(labels.joints_2d_px, crop_from_image, crop_px) * (labels.joints_2d_conf > 0)[..., None]
    return HandBatch(
        pixels=torch.from_numpy(crops),
        color_gain=_float(augmentation.gain[: len(crops)]),
        keypoints_2d=_float(input_pose(labels, crop_from_image, crop_px, keypoints)),
        joints_2d=_float(joints_2d),
        joints_2d_conf=_float(labels.joints_2d_conf),
        joints_3d_m=_float(labels.joints_3d_m @ rotation.transpose(0, 2, 1)),
        joints_3d_valid=_float(labels.joints_3d_valid),
        rotmats=_float(rotmats),
        betas=_float(labels.betas),
        has_mano=_float(labels.has_mano),
        crop_from_image=torch.from_numpy(crop_from_image),
        is_left=torch.from_numpy(labels.is_left),
        image_size_px=torch.from_numpy(labels.size_px),
        index=torch.full((batch,), -1) if index is None else torch.from_numpy(np.asarray(index, np.int64)),
        text_ids=torch.from_numpy(np.zeros((batch, 0), np.int64) if text_ids is None else text_ids),
    )


def _about_optical_axis(angle_rad: Array) -> Array:
    """(B,) clockwise rotations of the image -> (B, 3, 3) rotations in camera axes (x right, y down)."""
    c, s, zero, one = np.cos(angle_rad), np.sin(angle_rad), np.zeros_like(angle_rad), np.ones_like(angle_rad)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)


def _float(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
