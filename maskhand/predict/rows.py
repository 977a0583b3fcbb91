"""Predicted hands as records of plain values, one JSON line each.

`hand.schema.json` specifies a line. Numbers are rounded to a meaningful precision: micrometers, microradians,
thousandths of a pixel.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import MANO_16, Side
from maskhand.hand.assumed_camera import FOCAL
from maskhand.hand.pose_convention import BodyConvention, body_hand_json
from maskhand.predict.records import PlacedHand, PredictedHand

if TYPE_CHECKING:
    from maskhand.predict.hand_group import Reconstruction
    from maskhand.predict.pictures import Picture

SCHEMA: Final = "maskhand.hand/1"
"""Name and version of the row format; the version changes when programs that read rows would have to change."""
SCHEMA_FILE: Final = Path(__file__).with_name("hand.schema.json")

Row = dict[str, Any]


def picture_rows(
    picture: Picture,
    hands: Sequence[PredictedHand],
    reconstruction: Reconstruction,
    no_hand: str,
    vertices: bool = False,
    convention: BodyConvention | None = None,
) -> list[Row]:
    """A row for each hand of a picture; without hands, one row with the reason.

    no_hand: the reason if the picture itself has none; vertices: whether rows contain the mesh vertices; convention:
    of a body model; rows then have the hand's pose in it as well.
    """
    head: Row = {
        "schema": SCHEMA,
        "picture": os.fsencode(picture.source.path).decode(errors="backslashreplace"),
        "name": os.fsencode(picture.name).decode(errors="backslashreplace"),
        "frame": picture.frame,
        "time_s": None if picture.time_s is None else round(picture.time_s, 6),
        "image_size_px": None if picture.size_px is None else list(picture.size_px),
    }
    if not picture.is_readable:
        return [head | {"status": "unreadable", "reason": picture.reason}]
    if not hands:
        return [head | {"status": "no hand", "reason": picture.reason or no_hand}]
    return [
        head | {"status": "hand", "hand": k} | hand_row(hand, reconstruction, vertices, convention)
        for k, hand in enumerate(hands)
    ]


def hand_row(
    hand: PredictedHand,
    reconstruction: Reconstruction,
    vertices: bool = False,
    convention: BodyConvention | None = None,
) -> Row:
    """The fields of a hand in a row."""
    facts = to_json(hand)
    if vertices:
        facts["vertices_cam_m"] = _numbers(hand.vertices_cam_m, 6)
    if convention is not None:
        facts["body_hand"] = body_hand_json(hand.pose_aa, hand.side, convention)
    return facts | made_by(reconstruction, hand)


def made_by(reconstruction: Reconstruction, hand: PredictedHand) -> Row:
    """The method, model, hand model and keypoint detector that a hand was made with."""
    bundle = reconstruction.bundle
    return {
        "method": hand.method,
        "model": None if bundle is None else {"digest": bundle.digest, "recipe": bundle.recipe.name},
        "hand_model": hand.hand_model,
        "keypoint_detector": hand.detector,
    }


def json_line(row: Row) -> bytes:
    """The row as a line of JSON."""
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def to_json(hand: PredictedHand) -> Row:
    """The record of a hand without the mesh: meters, radians, pixels."""
    facts = {
        "side": hand.side if hand.side_known else None,
        "guess": hand.is_guess,
        "box_xyxy_px": _numbers(hand.box_xyxy_px, 2),
        "detection_score": None if hand.detection_score is None else round(float(hand.detection_score), 4),
        **_pose_json(hand, hand.side),
        "camera": {
            "source": hand.camera_origin,
            "K_px": _numbers(hand.K_px, 4),
            "crop": dict(zip(("scale", "tx", "ty"), _numbers(hand.crop_camera, 6), strict=True)),
            "crop_focal": FOCAL,
            "crop_from_image": _numbers(hand.crop_from_image, 6),
            "crop_is_mirrored": hand.side == "left",
        },
        "joints_cam_m": _numbers(hand.joints_cam_m, 6),
        "joints_px": _numbers(hand.joints_px, 3),
        "p_within_10mm": _numbers_or_none(hand.p_within_10mm, 3),
        "joint_error_mm": _numbers_or_none(hand.joint_error_mm, 2),
        "keypoints_px": _numbers(hand.keypoints_px, 3),
        "keypoints_confidence": _numbers(hand.keypoints_confidence, 4),
    }
    if hand.hypotheses:
        facts["joint_spread_mm"] = _numbers(1e3 * hand.joint_spread_m, 2)
        facts["hypotheses"] = [
            {"drawn": h.drawn, "score": round(h.score, 4), **_pose_json(h, hand.side)} for h in hand.hypotheses
        ]
        facts["modes"] = [
            {"share": round(mode.share, 4), "medoid": mode.medoid, "members": list(mode.members)} for mode in hand.modes
        ]
    return facts


def _pose_json(hand: PlacedHand, side: Side) -> Row:
    from_tokens = {
        "log_probability": round(hand.log_probability, 4),
        "token_confidence_of_joints": dict(zip(MANO_16, _numbers(hand.token_confidence_of_joints, 4), strict=True)),
        "tokens": hand.tokens.tolist(),
        "token_confidence": _numbers(hand.token_confidence, 4),
    }
    return (from_tokens if len(hand.tokens) else {}) | {
        "mano": {
            "side": side,
            "flat_hand_mean": True,
            "global_orient": _numbers(hand.pose_aa[0], 6),
            "hand_pose": _numbers(hand.pose_aa[1:], 6),
            "betas": _numbers(hand.betas, 6),
            "transl_cam_m": _numbers(hand.transl_cam_m, 6),
        },
    }


def _numbers_or_none(values: Array, digits: int) -> list[Any] | None:
    """As `_numbers`; None if the values are NaN (the method is not calibrated)."""
    return _numbers(values, digits) if np.isfinite(values).all() else None


def _numbers(values: Array, digits: int) -> list[Any]:
    """Rounded nested lists."""
    return (np.round(np.asarray(values, np.float64), digits) + 0.0).tolist()  # + 0.0: no negative zeros
