"""A right and a left predicted hand in one image, with hypotheses in two bundles and tokens that are filled in."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, Side
from maskhand.hand.layer import ManoLayer
from maskhand.predict.modes import find_modes
from maskhand.predict.records import FilledHand, Hypothesis, PredictedHand
from support.known_hands import KnownHands, known_hands, mesh, pixels

SIZE_PX = 224
TOKENS = 16
STEPS = (0, 2, 6, 11, 16)
"""Tokens fixed before the first pass and after each."""


def predicted_hands(seed: int = 0) -> list[PredictedHand]:
    known = known_hands(2, seed)
    return [_hand(known, 0, "right", seed), _hand(known, 1, "left", seed)]


def _hand(known: KnownHands, number: int, side: Side, seed: int) -> PredictedHand:
    rng = np.random.default_rng(seed)
    layer = ManoLayer.from_default()
    faces = layer.faces.numpy()
    K_px = known.K_px[number]
    pose, betas, transl = known.pose_aa[number], known.betas[number], known.transl_m[number]

    def placed(noise: float, bent: float, fixed: int = TOKENS) -> dict[str, Any]:
        own = pose + noise * rng.normal(size=pose.shape)
        own[4:10] += bent  # middle and little finger
        joints, vertices = mesh(own[None], betas[None], transl[None])
        mirror = (MIRROR_AXIS_ANGLE, MIRROR_POINT) if side == "left" else (np.ones(3), np.ones(3))
        joints, vertices = joints[0] * mirror[1], vertices[0] * mirror[1]
        codes = np.where(np.arange(TOKENS) < fixed, np.arange(TOKENS), 20)
        return {
            "pose_aa": own * mirror[0],
            "betas": betas,
            "transl_cam_m": transl * mirror[1],
            "vertices_cam_m": vertices,
            "joints_cam_m": joints,
            "joints_px": pixels(joints[None], K_px[None])[0],
            "crop_camera": np.array([0.9, 0.1, -0.1]),
            "token_confidence_of_joints": np.linspace(0.2, 0.9, 16),
            "tokens": codes,
            "token_confidence": np.linspace(0.2, 0.9, TOKENS),
            "log_probability": -1.0,
        }

    hypotheses = tuple(
        Hypothesis(**placed(0.01, bent), drawn=drawn, score=-float(rank))
        for rank, (bent, drawn) in enumerate([(0, 3), (0, 1), (0.9, 2), (0.9, 1), (0, 1)])
    )
    hand = placed(0.0, 0.0)
    return PredictedHand(
        **hand,
        side=side,
        side_known=True,
        box_xyxy_px=np.concatenate([hand["joints_px"].min(0), hand["joints_px"].max(0)]).astype(np.float32),
        detection_score=0.9,
        keypoints_px=hand["joints_px"] + 1,
        keypoints_confidence=np.full(21, 0.8),
        faces=faces[:, ::-1] if side == "left" else faces,
        K_px=K_px,
        crop_from_image=np.eye(2, 3),
        p_within_10mm=np.linspace(0.9, 0.3, 21),
        joint_error_mm=np.linspace(3, 25, 21),
        detector="litert-hand",
        method="model",
        hand_model=layer.digest,
        camera_origin="focal",
        hypotheses=hypotheses,
        modes=find_modes(np.stack([h.joints_cam_m for h in hypotheses]), [h.drawn for h in hypotheses]),
        fill_in=tuple(FilledHand(**placed(0.02, 0, count), fixed=np.arange(TOKENS) < count) for count in STEPS),
    )
