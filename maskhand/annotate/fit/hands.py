"""MANO targets fitted to the samples of a dataset, in right-hand form, each with its residual and fault, if any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskhand.annotate.fit.evidence import Evidence
from maskhand.annotate.fit.fitter import Fits, ManoFitter
from maskhand.annotate.fit.observed import Observed, no_relative
from maskhand.arrays import Array64
from maskhand.conventions import FINGERTIPS, MIRROR_POINT, NUM_JOINTS
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.sample import HandPose, HandSample
from maskhand.shards.sidecar_records import ManoTarget, TargetFault, TargetSource

MIN_OBSERVED = 8
"""Hands with fewer joints are not fitted."""
FOREIGN_TIP_WEIGHT = 0.1
"""Weight of tips that are not vertices of the model: they show the last joint's bend, but are off by a few mm."""
MAX_RESIDUAL_OF_HAND = 0.05
"""Maximum mean distance of a good 2D fit, in sides of the keypoints' box (PCK's strictest threshold)."""
MIN_HAND_PX = 24.0
"""Minimum longer side of the keypoints' box; smaller hands do not show their pose, even if the residual is small."""
MIN_FINGERS = 5
"""Number of fingers that must be seen (`Evidence`): the pose of an unseen finger is determined by the prior alone."""
MAX_BETA = 3.0
"""Largest shape coefficient of a good fit (HaMeR's limit); observations that need more are wrong."""


def fit_hands(
    hands: Sequence[HandSample], fitter: ManoFitter, *, tips_are_vertices: bool, max_residual_mm: float
) -> list[ManoTarget | None]:
    """Fit all hands together; None for hands with fewer than MIN_OBSERVED annotated joints.

    Unobserved parts are determined by the prior; fits with too little evidence, or with a large residual, have a
    `fault`. A sample with enough 3D joints is fitted to them, others to their keypoints, with HaMeR's long focal length
    if the camera is unknown, so that the depth is only relative. `tips_are_vertices`: whether the annotated 3D tips are
    the fitter's fingertip vertices.
    """
    rows = [_observe(hand) for hand in hands]
    seen = [k for k, row in enumerate(rows) if row is not None]
    if not seen:
        return [None] * len(hands)
    columns = zip(*(row for row in rows if row is not None), strict=True)
    joints, weight_3d, keypoints, weight_2d, K_px = (np.stack(column) for column in columns)
    # exactly one of the two weights of each hand is not all zero
    evidence = [Evidence.of(weight) for weight in weight_3d + weight_2d]
    if not tips_are_vertices:
        weight_3d[:, list(FINGERTIPS)] *= FOREIGN_TIP_WEIGHT
    fits = fitter.fit(Observed(joints, weight_3d, keypoints, weight_2d, K_px, *no_relative(len(seen))))
    answers: list[ManoTarget | None] = [None] * len(hands)
    for place, k in enumerate(seen):
        answers[k] = target_of_fit(
            fits, place, evidence[place], "fitted", mirrored=hands[k].side == "left", max_residual_mm=max_residual_mm
        )
    return answers


def target_of_fit(
    fits: Fits, k: int, evidence: Evidence, source: TargetSource, *, mirrored: bool, max_residual_mm: float = np.inf
) -> ManoTarget:
    """The k-th fit as a target, with its evidence, residuals and fault, if any."""
    mm, px, hand_px = float(fits.residual_mm[k]), float(fits.residual_px[k]), float(fits.hand_px[k])
    pose = HandPose(*(v[k].astype(np.float32) for v in (fits.pose_aa, fits.betas, fits.transl_cam_m)))
    in_image = not np.isnan(px)
    faults: dict[TargetFault, bool] = {
        "not_finite": not all(np.isfinite(v).all() for v in (pose.pose_aa, pose.betas, pose.transl_cam_m)),
        "few_fingers": evidence.fingers < MIN_FINGERS,
        "too_small": in_image and hand_px < MIN_HAND_PX,
        "far_off": px > MAX_RESIDUAL_OF_HAND * hand_px or mm > max_residual_mm,
        "strange_shape": bool(np.abs(pose.betas).max() > MAX_BETA),
    }
    fault: TargetFault = next((fault for fault, found in faults.items() if found), "")
    return ManoTarget(pose, source, mirrored, fault, mm, px, evidence.joints, evidence.fingers)


def _observe(hand: HandSample) -> tuple[Array64, Array64, Array64, Array64, Array64] | None:
    """One row of `Observed`, mirrored if it is a left hand."""
    joints, weight_3d = np.zeros((NUM_JOINTS, 3)), np.zeros(NUM_JOINTS)
    keypoints, weight_2d = np.zeros((NUM_JOINTS, 2)), np.zeros(NUM_JOINTS)
    if hand.joints_cam_m is not None:
        joints = hand.joints_cam_m.astype(np.float64)
        weight_3d = np.ones(NUM_JOINTS) if hand.joints_3d_valid is None else hand.joints_3d_valid.astype(np.float64)
    if hand.joints_2d_px is not None:
        keypoints = hand.joints_2d_px.astype(np.float64)
        weight_2d = np.ones(NUM_JOINTS) if hand.joints_2d_conf is None else hand.joints_2d_conf.astype(np.float64)
    if (weight_3d > 0).sum() >= MIN_OBSERVED:
        weight_2d = np.zeros(NUM_JOINTS)
    elif (weight_2d > 0).sum() >= MIN_OBSERVED:
        weight_3d = np.zeros(NUM_JOINTS)
    else:
        return None
    K = assumed_camera(hand.image_size_px) if hand.camera is None else hand.camera.K_px.astype(np.float64)
    if hand.side == "left":
        last = hand.image_size_px[0] - 1
        joints = joints * MIRROR_POINT
        keypoints = keypoints * [-1, 1] + [last, 0]
        # u -> last - u for u = (K X)_0 / (K X)_2, with X mirrored as well
        K = np.array([[-1, 0, last], [0, 1, 0], [0, 0, 1]]) @ K @ np.diag(MIRROR_POINT)
    return joints, weight_3d, keypoints, weight_2d, K
