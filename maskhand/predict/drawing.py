"""The hands of a photo drawn over it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.predict.records import PredictedHand
from maskhand.render import draw_keypoints, draw_label, overlay_mesh

OVERLAY_PX = 4096
"""Maximum of the longer side of the overlay."""


def draw_hands(image_rgb: Array, hands: Sequence[PredictedHand]) -> Array:
    """The photo with all meshes, far hands first, the detected 2D keypoints, and labels.

    A larger photo is reduced to `OVERLAY_PX`, as drawing and compression dominate the time for huge ones.
    """
    drawn, view_from_image = _view(image_rgb)
    scale, offset = view_from_image.diagonal()[:2], view_from_image[:2, 2]
    for hand in sorted(hands, key=lambda h: -float(h.transl_cam_m[2])):
        if hand.vertices_cam_m[:, 2].min() > 0:  # a badly trained model may place a hand behind the camera
            drawn = overlay_mesh(drawn, hand.vertices_cam_m, hand.faces, view_from_image @ hand.K_px)
    for hand in hands:
        drawn = draw_keypoints(drawn, hand.keypoints_px * scale + offset, hand.keypoints_confidence)
    for k, hand in enumerate(hands):
        x, y = (hand.box_xyxy_px[:2] * scale + offset).tolist()
        drawn = draw_label(drawn, hand_name(k, hand), (x, y))
    return drawn


def _view(image_rgb: Array) -> tuple[Array, Array]:
    """The image at the size of the overlay, and the (3, 3) affine from its pixels to those."""
    height, width = image_rgb.shape[:2]
    if max(height, width) <= OVERLAY_PX:
        return image_rgb, np.eye(3)
    size = np.maximum(1, np.rint(np.array([width, height]) * (OVERLAY_PX / max(height, width)))).astype(int)
    scale = size / (width, height)
    offset = (scale - 1) / 2  # cv2's pixel centers: x' = (x + 1/2) s - 1/2
    affine = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]])
    return cv2.resize(image_rgb, size.tolist(), interpolation=cv2.INTER_AREA), affine


def hand_name(number: int, hand: PredictedHand) -> str:
    """The label of a hand: its number, side and expected joint error."""
    side = hand.side if hand.side_known else "side unknown"
    error = f", {hand.joint_error_mm.mean():.0f} mm" if np.isfinite(hand.joint_error_mm).all() else ""
    return f"hand {number}, {side}" + (", a guess" if hand.is_guess else error)
