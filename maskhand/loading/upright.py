"""Upright hands (`data.upright`): crops rotated about the optical axis so that the wrist is below the fingers.

The rotation is determined by two joints of the 2D pose, `UPRIGHT`; if the network gets no 2D pose, the crop is not
rotated. The remaining variation of the hand's orientation is small, so the tokens mostly encode the fingers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.conventions import NUM_BETAS, NUM_MANO_JOINTS, UPRIGHT
from maskhand.geometry2d import box_center_px
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import turn_hands
from maskhand.loading.augment import KeypointAugmentation
from maskhand.loading.labels import Labels


@dataclass(frozen=True)
class UprightBoxes:
    """The boxes of B hands that were turned upright."""

    turn_rad: Array
    """(B,) clockwise rotation of the (mirrored, if left) image that turns the hand upright; 0 if unknown."""
    center_px: Array
    """(B, 2) centers of the boxes, in the image before the rotation."""
    box_xyxy_px: Array
    """(B, 4) in the axes of the rotated image, relative to the center of the hand's original box."""


def upright_boxes(labels: Labels, source: KeypointAugmentation | str) -> UprightBoxes:
    """Turn hands upright by the 2D pose that `collate.input_pose` takes from the same source, before noise is added.

    A 2D pose that is dropped in training still places the crop; only the network does not get it.
    """
    points_px, confidence = _given_pose(labels, source)
    seen = np.maximum(confidence, 0).astype(bool)
    known = seen[:, list(UPRIGHT)].all(axis=1)
    start, end = (points_px[:, joint] for joint in UPRIGHT)
    x, y = np.where(known[:, None], end - start, (0.0, -1.0)).T
    turn_rad = -np.pi / 2 - np.arctan2(y, x)
    return _turned_boxes(labels.box_xyxy_px, points_px, seen & known[:, None], turn_rad)


def _given_pose(labels: Labels, source: KeypointAugmentation | str) -> tuple[Array, Array]:
    """Pixels (B, 21, 2) and confidences (B, 21), which are zero if there is no 2D pose."""
    if isinstance(source, KeypointAugmentation):
        detected = source.takes_detected(labels.detected_conf) | (source.errors is not None)
        points = np.where(detected[:, None, None], labels.detected_px, labels.joints_2d_px)
        confidence = np.where(detected[:, None], labels.detected_conf, labels.joints_2d_conf)
        return points, confidence
    if source == "detected":
        return labels.detected_px, labels.detected_conf
    return labels.joints_2d_px, labels.joints_2d_conf * (source != "none")


def _turned_boxes(box_xyxy_px: Array, points_px: Array, seen: Array, turn_rad: Array) -> UprightBoxes:
    """The boxes of hands with boxes (B, 4) and keypoints (B, 21, 2), seen where (B, 21) is True, after a rotation."""
    # The given box alone is not enough: a square of its size cuts off parts of a hand that lay along its diagonal, and
    # one around the rotated box is up to 1.4 times too large. The keypoints alone may be wrong. So the new box contains
    # the seen keypoints and the ellipse inscribed in the given box, and is limited to the bounds of the rotated box.
    # With detections it loses a tenth of the joints that the square of the given box loses, and its side varies half as
    # much around that of the true joints. Without a rotation it is the given box.
    center = box_center_px(box_xyxy_px)
    half = (np.asarray(box_xyxy_px[:, 2:], np.float64) - box_xyxy_px[:, :2]) / 2
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    ellipse = np.sqrt((turn**2 @ half[..., None] ** 2)[..., 0])
    corner = (np.abs(turn) @ half[..., None])[..., 0]
    points = (points_px - center[:, None]) @ turn.transpose(0, 2, 1)
    low, high = (pick(np.where(seen[..., None], points, 0), axis=1) for pick in (np.min, np.max))
    low, high = np.clip(low, -corner, -ellipse), np.clip(high, ellipse, corner)
    middle = ((low + high)[:, None] / 2 @ turn)[:, 0]
    return UprightBoxes(turn_rad, center + middle, np.concatenate([low, high], axis=1))


def rest_direction(mano: ManoLayer) -> Tensor:
    """(3,) direction from the first to the second joint of `UPRIGHT` in the flat mean hand, without rotation."""
    like = mano.weights
    flat = torch.eye(3).expand(1, NUM_MANO_JOINTS, 3, 3).to(like)
    with torch.no_grad():
        start, end = mano(flat, like.new_zeros(1, NUM_BETAS)).joints_m[0, list(UPRIGHT)]
    return end - start


def stand_upright(rotmats: Tensor, direction: Tensor) -> Tensor:
    """Poses (B, 16, 3, 3) rotated about the optical axis as their crops would be, for hands on the optical axis.

    direction (3,): `rest_direction` of the hand model.
    """
    x, y, _ = (rotmats[:, 0] @ direction.to(rotmats)).unbind(-1)
    angle_rad = -math.pi / 2 - torch.atan2(y, x)
    c, s = angle_rad.cos(), angle_rad.sin()
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
    return turn_hands(rotmats, turn)
