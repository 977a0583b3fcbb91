"""Hand, forearm and objects to a layer of light: one ray per pixel, four more where an outline crosses the pixel.

Visibility is embree's (`raycast.py`), color is numpy's (`shading.py`); `film.py` develops the layer into a photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32
from maskhand.synth.raycast import Scene, vertex_occlusion
from maskhand.synth.shading import Cloth, Light, Shader, Skin
from maskhand.synth.skin import SkinMaps
from maskhand.synth.solids import Solid
from maskhand.synth.surface import ArmMesh, HandSurface

EDGE_DEPTH_STEP_M = 0.004
# a turned grid: near-vertical and near-horizontal outlines meet four different levels
SUBPIXELS = np.array([(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)], np.float32)


@dataclass(frozen=True)
class Layer:
    """A rendered foreground, to be laid over any background. H x W of the requested size."""

    light: Array32
    """(H, W, 3) linear, already multiplied by alpha."""
    alpha: Array32
    """(H, W) share of the pixel covered by anything."""
    hand: Array32
    """(H, W) share covered by the visible hand (without forearm, sleeve or objects)."""
    depth_m: Array32
    """(H, W) distance along the optical axis of the nearest surface in the pixel; infinite where there is none."""

    @staticmethod
    def empty(height: int, width: int) -> Layer:
        return Layer(
            light=np.zeros((height, width, 3), np.float32),
            alpha=np.zeros((height, width), np.float32),
            hand=np.zeros((height, width), np.float32),
            depth_m=np.full((height, width), np.inf, np.float32),
        )


def composite(first: Layer, second: Layer) -> Layer:
    """Both in one image, in each pixel the nearer one in front."""
    nearer = first.depth_m <= second.depth_m
    seen_first = np.where(nearer, 1, 1 - second.alpha).astype(np.float32)
    seen_second = np.where(nearer, 1 - first.alpha, 1).astype(np.float32)
    return Layer(
        seen_first[..., None] * first.light + seen_second[..., None] * second.light,
        seen_first * first.alpha + seen_second * second.alpha,
        seen_first * first.hand + seen_second * second.hand,
        np.minimum(first.depth_m, second.depth_m),
    )


def render(
    surface: HandSurface, arm: ArmMesh, solids: Sequence[Solid], maps: SkinMaps, skin: Skin, cloth: Cloth,
    light: Light, K_px: NDArray[np.float64], size_px: tuple[int, int], rng: np.random.Generator,
) -> Layer:  # fmt: skip
    """Render one hand seen by K_px (3, 3) into size_px (width, height); pixel centers are whole numbers."""
    width, height = size_px
    scene = Scene(arm, solids)
    occlusion = vertex_occlusion(scene, surface)
    x0, y0, x1, y1 = _window(scene.vertices, K_px, width, height)
    blank = Layer.empty(height, width)
    if x1 <= x0 or y1 <= y0:
        return blank
    xs, ys = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    shade = Shader(scene, occlusion, maps, skin, cloth, light, rng)
    rows, cols = xs.shape
    color, covered, is_hand, part, depth = shade(_rays(xs, ys, K_px), (rows, cols))
    light_px = color.reshape(rows, cols, 3)
    alpha = covered.reshape(rows, cols).astype(np.float32)
    hand = is_hand.reshape(rows, cols).astype(np.float32)
    nearest = np.where(covered, depth, np.float32(np.inf)).reshape(rows, cols)

    edge = _edges(part.reshape(rows, cols), depth.reshape(rows, cols))
    ey, ex = np.nonzero(edge)
    if len(ey):
        sub_x = (xs[ey, ex][:, None] + SUBPIXELS[:, 0]).reshape(-1)
        sub_y = (ys[ey, ex][:, None] + SUBPIXELS[:, 1]).reshape(-1)
        color, covered, is_hand, _, depth = shade(_rays(sub_x, sub_y, K_px))
        light_px[ey, ex] = color.reshape(-1, 4, 3).mean(1)
        alpha[ey, ex] = covered.reshape(-1, 4).mean(1)
        hand[ey, ex] = is_hand.reshape(-1, 4).mean(1)
        nearest[ey, ex] = np.where(covered, depth, np.float32(np.inf)).reshape(-1, 4).min(1)
    blank.light[y0:y1, x0:x1] = light_px
    blank.alpha[y0:y1, x0:x1] = alpha
    blank.hand[y0:y1, x0:x1] = hand
    blank.depth_m[y0:y1, x0:x1] = nearest
    return blank


def _rays(xs: NDArray, ys: NDArray, K_px: NDArray[np.float64]) -> Array32:
    """(N, 3) directions with unit depth, so that a hit's `tfar` is its depth in meters."""
    x = (xs.reshape(-1) - K_px[0, 2]) / K_px[0, 0]
    y = (ys.reshape(-1) - K_px[1, 2]) / K_px[1, 1]
    return np.stack([x, y, np.ones_like(x)], 1).astype(np.float32)


def _window(points: Array32, K_px: NDArray[np.float64], width: int, height: int) -> tuple[int, int, int, int]:
    """Pixels that can show any of the points; everything in front of the camera counts."""
    front = points[points[:, 2] > 0.02]
    if not len(front):
        return 0, 0, 0, 0
    uv = front[:, :2] / front[:, 2:] * K_px[[0, 1], [0, 1]] + K_px[:2, 2]
    low, high = np.floor(uv.min(0)) - 1, np.ceil(uv.max(0)) + 2
    if len(front) < len(points):
        return 0, 0, width, height
    return (int(max(low[0], 0)), int(max(low[1], 0)), int(min(high[0], width)), int(min(high[1], height)))


def _edges(part: NDArray, depth: Array32) -> NDArray[np.bool_]:
    """Pixels where the surface or the depth jumps between neighbors."""
    edge = np.zeros(part.shape, bool)
    for axis in (0, 1):
        jump = (np.diff(part, axis=axis) != 0) | (np.abs(np.diff(depth, axis=axis)) > EDGE_DEPTH_STEP_M)
        before, after = ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))
        if axis:
            before, after = before[::-1], after[::-1]
        edge[before] |= jump
        edge[after] |= jump
    return edge
