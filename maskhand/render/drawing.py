"""Keypoints, joints and boxes drawn on images, with dark outlines for contrast on any background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import BONES
from maskhand.render.fonts import PAPER

FINGER_RGB = ((230, 57, 70), (244, 162, 45), (82, 183, 74), (52, 144, 220), (155, 93, 229))
"""Thumb, index, middle, ring, little."""
WRIST_RGB = (235, 235, 235)
_DARK = (20, 20, 20)


def draw_keypoints(
    image_rgb: Array, joints_px: Array, conf: Array | None = None, occluded: Array | None = None
) -> Array:
    """Draw the 21-joint skeleton, colored by finger, on a copy of the image.

    joints_px (21, 2) OpenPose order; conf (21,) in 0..1 sets the radius and the opacity, 0 or NaN omits a joint;
    occluded (21,) bool: joints that are drawn as rings.
    """
    conf = np.ones(21) if conf is None else np.nan_to_num(np.asarray(conf, dtype=np.float64)).clip(0, 1)
    joints = np.asarray(joints_px, dtype=np.float64)
    seen = (conf > 0) & np.isfinite(joints).all(1) & (np.abs(np.nan_to_num(joints)) < 1e5).all(1)
    canvas = image_rgb.astype(np.float32)
    if not seen.any():
        return image_rgb.copy()
    reach = float(np.ptp(joints[seen], axis=0).max())
    width = max(1.5, reach / 60)
    bones = [(a, b, 0.25 + 0.65 * min(conf[a], conf[b])) for a, b in BONES if seen[a] and seen[b]]
    for a, b, opacity in bones:
        _stroke(canvas, joints[a], joints[b], width + max(2.0, 0.8 * width), _DARK, 0.7 * opacity)
    for a, b, opacity in bones:
        _stroke(canvas, joints[a], joints[b], width, FINGER_RGB[(b - 1) // 4], opacity)
    for j in np.flatnonzero(seen):
        color = WRIST_RGB if j == 0 else FINGER_RGB[(j - 1) // 4]
        ring = occluded is not None and bool(occluded[j])
        radius = width * (0.8 + 1.2 * conf[j]) * (1.4 if ring else 1.0)  # a ring needs room for its hole
        _stroke(canvas, joints[j], joints[j], 2 * radius + max(1.0, 0.8 * width), _DARK, 0.2 + 0.6 * conf[j])
        _stroke(canvas, joints[j], joints[j], 2 * radius, color, 0.3 + 0.7 * conf[j])
        if ring:
            _stroke(canvas, joints[j], joints[j], max(2.0, 1.25 * radius), image_rgb, 1.0)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def draw_joints(image_rgb: Array, joints_px: Array, colors_rgb: Array) -> Array:
    """Draw 21 joints (21, 2) in colors (21, 3) uint8, with thin bones, on a copy of the image.

    A joint has a dark ring in a light one: it shows on any image, also in its own color. Joints that are not finite are
    left out.
    """
    joints = np.asarray(joints_px, np.float64)
    seen = np.abs(np.where(np.isfinite(joints), joints, np.inf)).max(axis=1) < 1e5
    if not seen.any():
        return image_rgb.copy()
    canvas = image_rgb.astype(np.float32)
    reach = float(np.ptp(joints[seen], axis=0).max())
    width, diameter = float(np.clip(reach / 130, 1.0, 6)), float(np.clip(reach / 22, 3.6, 30))
    bones = [(joints[a], joints[b]) for a, b in BONES if seen[a] and seen[b]]
    for stroke_px, color, opacity in ((2.2 * width, _DARK, 0.5), (width, PAPER, 0.8)):
        for a, b in bones:
            _stroke(canvas, a, b, stroke_px, color, opacity)
    for j in np.flatnonzero(seen):
        for part, color in ((1.5, PAPER), (1.25, _DARK), (1.0, colors_rgb[j])):
            _stroke(canvas, joints[j], joints[j], part * diameter, color, 0.9 if part == 1.5 else 1.0)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def draw_box(image_rgb: Array, box_xyxy_px: Array) -> Array:
    """Draw a box x0, y0, x1, y1, light in dark, on a copy of the image."""
    x0, y0, x1, y1 = np.asarray(box_xyxy_px, np.float64)
    canvas, corners = image_rgb.astype(np.float32), np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    width = max(1.5, max(image_rgb.shape[:2]) / 500)
    for stroke_px, color in ((2.6 * width, _DARK), (width, PAPER)):
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _stroke(canvas, a, b, stroke_px, color, 0.8)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _stroke(canvas: Array, a: Array, b: Array, width: float, color: Sequence[int] | Array, opacity: float) -> None:
    """Blend a round-ended, anti-aliased line from a to b (a disc where they are one point) into a float image.

    color: RGB, or another image of the same size that the line shows.
    """
    height, length = canvas.shape[:2]
    low = np.floor(np.minimum(a, b) - width / 2 - 1).astype(int)
    high = np.ceil(np.maximum(a, b) + width / 2 + 2).astype(int)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, (length, height))
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float64)
    offset = np.stack([x - a[0], y - a[1]], axis=-1)
    along = b - a
    t = np.clip(offset @ along / max(float(along @ along), 1e-12), 0, 1)
    distance = np.linalg.norm(offset - t[..., None] * along, axis=-1)
    cover = opacity * np.clip(width / 2 - distance + 0.5, 0, 1)[..., None]
    paint = np.asarray(color)
    paint = paint[y0:y1, x0:x1] if paint.ndim == 3 else paint
    canvas[y0:y1, x0:x1] += (cover * (paint - canvas[y0:y1, x0:x1])).astype(np.float32)
