"""A keypoint detector's output as input of the fitter: 2D keypoints and, if the detector has it, depth.

A detector with depth describes a hand twice: by keypoints with a depth in pixels, and by world landmarks in meters.
Both are joints up to a translation, in a camera pointed at the hand; the 2D keypoints determine the translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from maskhand.annotate.detectors import Detections
from maskhand.annotate.fit.fitter import Fits
from maskhand.annotate.fit.observed import Observed
from maskhand.annotate.fit.start import rotation_between
from maskhand.arrays import Array64
from maskhand.conventions import MIRROR_POINT, NUM_JOINTS, Side

RELATIVE_NOISE_M = 0.014
"""Standard deviation of a coordinate of either source, tuned on 60 real hands (0.010 to 0.020 differ by 0.1 mm)."""

DEPTH_FACTOR = 2.5
"""Factor on the depth of keypoints, which detectors underestimate: that of `litert-hand` is .28 of the true depth
(`loading.detector_errors`). Smaller than the inverse, as the noise is amplified too; tuned on the same hands (2 to 3
differ by 0.05 mm)."""


def observe(detections: Detections, sides: Sequence[Side], sizes_px: Array64, K_px: Array64) -> Observed:
    """The observations of B detected hands, left ones mirrored to right ones.

    sizes_px (B, 2): width and height of their images; K_px (B, 3, 3): intrinsics, assumed or known.
    """
    left = np.array([side == "left" for side in sides])
    signs = np.where(left[:, None], MIRROR_POINT, 1.0)
    last = np.where(left, np.asarray(sizes_px, np.float64)[:, 0] - 1, 0.0)
    keypoints = detections.keypoints_px.astype(np.float64) * signs[:, None, :2]
    keypoints[..., 0] += last[:, None]
    mirror = np.tile(np.eye(3), (len(left), 1, 1))
    mirror[:, 0, 0], mirror[:, 0, 2] = signs[:, 0], last
    K_px = mirror @ K_px @ (signs[:, :, None] * np.eye(3))
    weight = detections.confidence.astype(np.float64)
    sources = _relative(detections, keypoints, signs, K_px)
    precision = np.where(weight > 0, 1 / RELATIVE_NOISE_M**2, 0.0)
    return Observed(
        joints_m=np.zeros((len(left), NUM_JOINTS, 3)),
        joint_weight=np.zeros((len(left), NUM_JOINTS)),
        keypoints_px=keypoints,
        keypoint_weight=weight,
        K_px=K_px,
        relative_m=sources,
        relative_precision=np.repeat(precision[:, None], sources.shape[1], axis=1),
    )


def with_relative(observed: Observed, joints_m: Array64, noise_m: float) -> Observed:
    """Add a source of relative joints (B, 21, 3), right hands, camera axes: the prediction of a network."""
    precision = np.full((len(observed), 1, NUM_JOINTS), 1 / noise_m**2)
    return replace(
        observed,
        relative_m=np.concatenate([observed.relative_m, joints_m[:, None]], axis=1),
        relative_precision=np.concatenate([observed.relative_precision, precision], axis=1),
    )


def fit_features(observed: Observed, fits: Fits) -> Array64:
    """(B, 21, 2) features of a fit to detected keypoints that predict its error, the same for every joint of a hand.

    Logarithms of the mean residual in sides of the hand's box, and of about one minus the keypoints' mean confidence.
    (The disagreement of the detector's two depth sources predicts errors well on real hands, but not at all on rendered
    ones, on which the calibration is made.)
    """
    residual = np.log(np.maximum(np.nan_to_num(fits.residual_px / fits.hand_px, nan=1.0), 1e-3))
    uncertainty = np.log(1.02 - np.clip(observed.keypoint_weight.mean(1), 0.0, 1.0))
    return np.repeat(np.stack([residual, uncertainty], axis=-1)[:, None], NUM_JOINTS, axis=1)


def _relative(detections: Detections, keypoints_px: Array64, signs: Array64, K_px: Array64) -> Array64:
    """(B, 0 or 2, 21, 3) world landmarks, and keypoints with depth scaled to the landmarks' size; camera axes."""
    if detections.world_m is None or detections.z_px is None:
        return np.zeros((len(detections), 0, NUM_JOINTS, 3))
    world = detections.world_m.astype(np.float64) * signs[:, None]
    depth = DEPTH_FACTOR * detections.z_px[..., None].astype(np.float64)
    # Different focal lengths stretch the picture; scaling y to pixels of fx undoes it.
    square = keypoints_px * np.stack([np.ones(len(K_px)), K_px[:, 0, 0] / K_px[:, 1, 1]], axis=1)[:, None]
    relief = np.concatenate([square, depth], axis=2)
    meters_per_px = np.sqrt(_spread(world[..., :2]) / np.maximum(_spread(square), 1e-9))
    both = np.stack([world, relief * meters_per_px[:, None, None]], axis=1)
    # A detector's depth is along the ray to the hand, which off the optical axis is not the camera's z.
    middle = np.concatenate([keypoints_px.mean(1), np.ones((len(world), 1))], axis=1)
    ray = (np.linalg.inv(K_px) @ middle[..., None])[..., 0]
    camera_from_ray = rotation_between(np.array([0.0, 0.0, 1.0]), ray)
    return np.asarray(both @ np.swapaxes(camera_from_ray, 1, 2)[:, None])


def _spread(points: Array64) -> Array64:
    """(B, N, n) -> (B,) sum of squared distances from their mean."""
    return np.asarray(((points - points.mean(1, keepdims=True)) ** 2).sum((1, 2)))
