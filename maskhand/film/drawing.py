"""The overlay of a film's frame: each hand's mesh in the color of its track, half transparent, outlined, with a label,
and its joints in the colors of their expected errors (`render/scale.py`).

Meshes are drawn as shaded triangles, far ones first, at twice the size and averaged: a few milliseconds per hand,
compared with a hundred for the ray-cast overlays of photos.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import BONES
from maskhand.film.records import FilmHand
from maskhand.render import error_rgb

TRACK_RGB = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
"""Colors that tracks get in turn (Okabe and Ito's palette, suitable for color-blind people)."""
OPACITY, OPACITY_UNSEEN = 0.55, 0.25
FINER = 2
"""Supersampling: pixels of the drawing per pixel of the frame, for antialiasing."""
SHIFT = 3
"""Fractional bits of drawing coordinates in OpenCV."""
TO_LIGHT = np.array([-0.45, -0.7, -0.55]) / np.linalg.norm([-0.45, -0.7, -0.55])
AMBIENT = 0.45
BOARD = 0.3
"""Factor on the brightness of the frame behind a label."""
TINY_PX = 48
"""A hand whose joints extend less is drawn without joints, which would overlap."""
RING_RGB, BONE_RGB = (32, 36, 42), (250, 250, 248)


def draw_frame(image_rgb: Array, hands: Sequence[FilmHand]) -> Array:
    """A copy of the frame (H, W, 3) uint8 with its hands; hands that were not seen are fainter."""
    drawn = image_rgb.copy()
    for item in sorted(hands, key=lambda h: -float(h.hand.transl_cam_m[2])):
        if item.hand.vertices_cam_m[:, 2].min() > 0:
            _draw_mesh(drawn, item)
    for item in hands:
        if item.seen:
            _draw_joints(drawn, item)
    for item in hands:
        _draw_label(drawn, item)
    return drawn


def _draw_mesh(image: Array, item: FilmHand) -> None:
    hand, color = item.hand, np.array(TRACK_RGB[item.track % len(TRACK_RGB)], np.float64)
    vertices = hand.vertices_cam_m
    uvw = vertices @ hand.K_px.T
    points = uvw[:, :2] / uvw[:, 2:]
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 3, 0).tolist()
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 4, (width, height)).tolist()
    if x0 >= x1 or y0 >= y1:
        return
    size = ((y1 - y0) * FINER, (x1 - x0) * FINER)
    # the center of a pixel (x, y) of the frame is the corner shared by four finer pixels
    finer = (points - (x0, y0) + 0.5) * FINER - 0.5
    triangles, shades = _shaded(vertices, np.asarray(hand.faces))
    corners = np.rint(finer[triangles] * (1 << SHIFT)).astype(np.int32)
    paint, cover = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    for polygon, shade in zip(corners, np.clip(shades[:, None] * color, 0, 255).tolist(), strict=True):
        cv2.fillConvexPoly(paint, polygon, shade, cv2.LINE_8, SHIFT)
        cv2.fillConvexPoly(cover, polygon, 255, cv2.LINE_8, SHIFT)
    outlines, _ = cv2.findContours(cover, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    rim = np.zeros(size, np.uint8)
    cv2.drawContours(rim, outlines, -1, 255, FINER, cv2.LINE_AA)
    to_frame = (x1 - x0, y1 - y0)
    share = cv2.resize(cover, to_frame, interpolation=cv2.INTER_AREA)[..., None] / 255.0
    edge = cv2.resize(rim, to_frame, interpolation=cv2.INTER_AREA)[..., None] / 255.0
    light = cv2.resize(paint, to_frame, interpolation=cv2.INTER_AREA)
    window, opacity = image[y0:y1, x0:x1], OPACITY if item.seen else OPACITY_UNSEEN
    mixed = window * (1 - opacity * share) + opacity * light
    mixed += (edge if item.seen else 0.5 * edge) * (color - mixed)
    image[y0:y1, x0:x1] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _draw_joints(image: Array, item: FilmHand) -> None:
    joints = item.hand.joints_px
    reach = float(np.ptp(joints, axis=0).max())
    if not (np.isfinite(joints).all() and reach >= TINY_PX and np.abs(joints).max() < 1 << 15):
        return
    points = np.rint(joints * (1 << SHIFT)).astype(int).tolist()
    for a, b in BONES:
        cv2.line(image, points[a], points[b], BONE_RGB, max(1, round(reach / 160)), cv2.LINE_AA, SHIFT)
    radius = float(np.clip(reach / 48, 2.0, 12.0))
    for point, color in zip(points, error_rgb(item.hand.joint_error_mm).tolist(), strict=True):
        for size, paint in ((radius + max(1.0, 0.3 * radius), RING_RGB), (radius, color)):
            cv2.circle(image, point, round(size * (1 << SHIFT)), paint, cv2.FILLED, cv2.LINE_AA, SHIFT)


def _shaded(vertices: Array, faces: Array) -> tuple[Array, Array]:
    """The triangles (N, 3) that face the camera, far ones first, and their brightness (N,)."""
    corners = vertices[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    toward = np.flatnonzero((area * corners[:, 0]).sum(1) < 0)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], area)
    smooth = normals[faces[toward]].sum(1)
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
    order = np.argsort(-corners[toward, :, 2].mean(1))
    brightness = AMBIENT + (1 - AMBIENT) * np.clip(smooth @ TO_LIGHT, 0, 1)
    return faces[toward[order]], 1.1 * brightness[order]


def _draw_label(image: Array, item: FilmHand) -> None:
    height, width = image.shape[:2]
    error = item.hand.joint_error_mm.mean()
    about = "not seen" if not item.seen else f"{error:.0f} mm" if np.isfinite(error) else ""
    text = f"{item.track} {item.hand.side} {about}".rstrip()
    scale = max(0.4, max(height, width) / 1400)
    thick = max(1, round(1.4 * scale))
    (length, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    x0, y0 = item.hand.joints_px.min(0)
    x = int(np.clip(x0, 3, max(width - length - 4, 3)))
    y = int(np.clip(y0 - 8, high + 3, max(height - below - 3, high + 3)))
    board = image[max(y - high - 3, 0) : y + below, max(x - 3, 0) : x + length + 3]
    board[:] = (BOARD * board).astype(np.uint8)
    color = TRACK_RGB[item.track % len(TRACK_RGB)]
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, thick, cv2.LINE_AA)
