"""Random hand shape, global orientation, and a camera whose image looks like a FreiHAND crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import ndtr, ndtri

from maskhand.arrays import Array64
from maskhand.conventions import NUM_BETAS

SIZE_PX = 224
BETA_LIMIT = 2.5
# FreiHAND's crops: focal lengths of 366..1131 px with most around 500, the hand filling half to three quarters
FOCAL_MEDIAN_PX, FOCAL_LOG_STD, FOCAL_RANGE_PX = 500.0, 0.22, (366.0, 1131.0)
FILL = (0.50, 0.76)
PRINCIPAL_PX = 112.0
CENTER_STD_PX = 9.0
# an elbow that points at the camera hides the hand behind its own arm
ELBOW_TO_CAMERA = 0.55


@dataclass(frozen=True)
class View:
    """A pinhole camera and where the hand stands in front of it, OpenCV axes."""

    K_px: Array64
    """(3, 3) float64."""
    transl_m: Array64
    """(3,) to be added to the points the view was fitted to."""


def sample_betas(rng: np.random.Generator) -> Array64:
    """(10,) standard normal, cut at +-2.5 deviations."""
    low = ndtr(-BETA_LIMIT)
    return np.asarray(ndtri(rng.uniform(low, 1 - low, NUM_BETAS)))


def sample_orientation(rng: np.random.Generator) -> Array64:
    """(3, 3) rotation of the rest frame into camera axes.

    All directions occur; arms rather come from below or the side than from above, and seldom straight at the camera.
    """
    while True:
        rotation = Rotation.random(random_state=rng).as_matrix()
        elbow = rotation[:, 0]
        accept = 0.35 + 0.65 * (0.5 + 0.5 * elbow[1])
        if elbow[2] < -ELBOW_TO_CAMERA:
            accept *= 0.06
        elif elbow[2] > 0.85:
            accept *= 0.4
        if rng.random() < accept:
            return np.asarray(rotation)


def fit_view(points_m: Array64, rng: np.random.Generator) -> View:
    """A camera that shows points_m (N, 3), given in camera axes up to a translation, large and near the center."""
    focal = float(np.clip(FOCAL_MEDIAN_PX * np.exp(FOCAL_LOG_STD * rng.standard_normal()), *FOCAL_RANGE_PX))
    K = np.array([[focal, 0, PRINCIPAL_PX], [0, focal, PRINCIPAL_PX], [0, 0, 1]])
    wanted_px = rng.uniform(*FILL) * SIZE_PX
    room_px = max((SIZE_PX - wanted_px) / 2 - 4, 0)
    middle_px = PRINCIPAL_PX + np.clip(rng.normal(0, CENTER_STD_PX, 2), -room_px, room_px)
    points = points_m - (points_m.max(0) + points_m.min(0)) / 2
    depth = focal * np.ptp(points[:, :2], axis=0).max() / wanted_px
    shift = np.zeros(2)
    # perspective makes near parts larger; a few rounds settle size and position to a fraction of a pixel
    for _ in range(4):
        at = points + np.array([*shift, depth])
        uv = focal * at[:, :2] / at[:, 2:] + PRINCIPAL_PX
        low, high = uv.min(0), uv.max(0)
        depth *= max((high - low).max() / wanted_px, 0.3)
        depth = max(depth, 0.05 - points[:, 2].min())
        shift += (middle_px - (low + high) / 2) * depth / focal
    offset = points[0] - points_m[0] + [*shift, depth]
    return View(K, np.asarray(offset))
