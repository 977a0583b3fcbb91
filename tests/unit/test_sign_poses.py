"""Fitting estimated hands of clips, on hands whose truth is known."""

from __future__ import annotations

import numpy as np

from maskhand.annotate.fit.fitter import ManoFitter
from maskhand.conventions import Side
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.metrics.samples import pa_mpjpe
from support.known_hands import known_hands, mesh, pixels
from tools.sign_poses import DEPTH_FACTOR, EstimatedHands, fit, is_good

FITTER = ManoFitter(load_hand_model(default_hand_path("right")))
SIZE_PX = (640, 480)
COUNT = 24


def _estimated(side: Side) -> tuple[EstimatedHands, np.ndarray]:
    """Hands far before the assumed camera, a telephoto, and their joints (COUNT, 21, 3) as right hands, meters."""
    truth, K_px = known_hands(COUNT, seed=5), assumed_camera(SIZE_PX)
    joints_m = truth.joints_m - truth.joints_m.mean(1, keepdims=True) + np.array([0.0, 0.0, 15.0])
    depth_px = (joints_m[..., 2] - joints_m[:, :1, 2]) * K_px[0, 0] / joints_m[:, :1, 2] / DEPTH_FACTOR
    points_px = np.concatenate([pixels(joints_m, K_px[None]), depth_px[..., None]], axis=2)
    if side == "left":
        points_px[..., 0] = SIZE_PX[0] - 1 - points_px[..., 0]
    return EstimatedHands(points_px, (side,) * COUNT, np.tile(SIZE_PX, (COUNT, 1))), joints_m


def test_known_hands_come_back_and_left_ones_as_their_mirror_images() -> None:
    poses = []
    for side in ("right", "left"):
        hands, joints_m = _estimated(side)
        fits = fit(FITTER, hands, slice(0, COUNT))
        assert is_good(fits).all()
        fitted_m, _ = mesh(fits.pose_aa, fits.betas, fits.transl_cam_m)
        assert 1000 * np.median(pa_mpjpe(fitted_m, joints_m)) < 4  # the mean pose is at 20
        poses.append(fitted_m - fitted_m[:, :1])
    np.testing.assert_allclose(*poses, atol=2e-3)


def test_a_hand_that_no_skeleton_has_is_not_good() -> None:
    hands, _ = _estimated("right")
    hands.points_px[:] = hands.points_px[:, np.random.default_rng(0).permutation(21)]
    assert is_good(fit(FITTER, hands, slice(0, COUNT))).mean() < 0.1
