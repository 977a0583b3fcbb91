"""Conversion of tracked hands back to predicted hands: smoothed parameters to meshes, joints and image positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT
from maskhand.film.records import FilmHand, TrackedHand
from maskhand.film.smoothing import hand_size_m
from maskhand.geometry2d import tight_box
from maskhand.hand.layer import ManoLayer
from maskhand.predict.records import PredictedHand

POSED_AT_ONCE = 64


def posed_hands(track: TrackedHand, layer: ManoLayer, fill: bool) -> Iterator[FilmHand]:
    """The hands of one track in the order of its frames; with `fill` also in frames where it was not seen."""
    rows = np.arange(len(track.frames)) if fill else np.flatnonzero(track.seen)
    side_known = any(hand.side_known for hand in track.predicted if hand is not None)
    before: PredictedHand | None = None
    for first in range(0, len(rows), POSED_AT_ONCE):
        chunk = rows[first : first + POSED_AT_ONCE]
        for row, posed in zip(chunk.tolist(), _posed(track, chunk, layer), strict=True):
            original = track.predicted[row]
            before = original or before
            assert before is not None, "the first row of a track was seen"
            hand = replace(before, side_known=side_known, **posed)
            yield FilmHand(
                int(track.frames[row]),
                float(track.motion.times_s[row]),
                track.number,
                original is not None,
                hand if original is not None else _not_seen(hand),
            )


def _posed(track: TrackedHand, rows: Array, layer: ManoLayer) -> list[dict[str, Array]]:
    """The fields of `PlacedHand` that depend on pose and position, for some rows of a track."""
    motion, signs = track.motion, MIRROR_POINT if track.side == "left" else np.ones(3)
    with torch.no_grad():
        mesh = layer(torch.from_numpy(motion.rotmats[rows]).float(), torch.from_numpy(motion.betas[rows]).float())
    vertices, joints = mesh.vertices_m.double().numpy(), mesh.joints_m.double().numpy()
    depth = np.exp(motion.distance[rows]) * hand_size_m(joints)
    middle = depth[:, None] * np.concatenate([motion.direction[rows], np.ones((len(rows), 1))], axis=1)
    # the mean of the joints was smoothed, so the hand is placed by it
    translation = (middle - joints.mean(1)) * signs
    vertices, joints = vertices * signs + translation[:, None], joints * signs + translation[:, None]
    pose = Rotation.from_matrix(motion.rotmats[rows].reshape(-1, 3, 3)).as_rotvec().reshape(len(rows), -1, 3)
    K_px = next(hand.K_px for hand in track.predicted if hand is not None)
    projected = joints @ K_px.T
    fields = {
        "pose_aa": pose * (MIRROR_AXIS_ANGLE if track.side == "left" else 1.0),
        "betas": motion.betas[rows],
        "transl_cam_m": translation,
        "vertices_cam_m": vertices,
        "joints_cam_m": joints,
        "joints_px": projected[..., :2] / projected[..., 2:],
    }
    return [{name: values[k] for name, values in fields.items()} for k in range(len(rows))]


def _not_seen(hand: PredictedHand) -> PredictedHand:
    """A hand interpolated from neighboring frames: no detection, and unknown error."""
    return replace(
        hand,
        box_xyxy_px=tight_box(hand.joints_px),
        detection_score=None,
        keypoints_px=hand.joints_px,
        keypoints_confidence=np.zeros_like(hand.keypoints_confidence),
        p_within_10mm=np.full_like(hand.p_within_10mm, np.nan),
        joint_error_mm=np.full_like(hand.joint_error_mm, np.nan),
        tokens=hand.tokens[:0],
        token_confidence=hand.token_confidence[:0],
    )
