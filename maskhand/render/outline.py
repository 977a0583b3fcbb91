"""Outlines of a mesh in an image: its silhouette, and edges where one part lies in front of another."""

from __future__ import annotations

import cv2
import numpy as np

from maskhand.arrays import Array

DARK_RGB, HALO_RGB = (16, 34, 74), (255, 255, 255)
"""Of the line, and of the thinner one around the silhouette, which shows on a dark image."""
_LINE_OPACITY, _HALO_OPACITY = 0.85, 0.55
_STEP_M = 0.004
"""A step in depth of this size is an edge: half the thickness of a finger's tip."""
_STEP_PX = 2.0
"""And of so many pixels of the grid: in a small image a curved surface falls off by as much within one."""
_LEAST_WIDTHS = 6
"""Edges of fewer line widths are left out: folds between two triangles that are seen aslant."""


class Outline:
    """Lines of an image's window (h, w), from depths on a grid twice as fine."""

    def __init__(self, shape: tuple[int, int], width_px: float) -> None:
        self.depth_m = np.full((2 * shape[0], 2 * shape[1]), np.inf, np.float32)
        self.width_px = width_px

    def add(self, depth_m: Array, row: int) -> None:
        """Set the depths (2h', 2w), meters, infinite beside the mesh, of the rows from `row` of the window on."""
        self.depth_m[2 * row : 2 * row + len(depth_m)] = depth_m

    def drawn_on(self, window: Array, focal_px: float) -> Array:
        """The window (h, w, 3) uint8 with the lines; focal_px in its pixels."""
        mesh = np.isfinite(self.depth_m)
        grid_px = 2 * self.width_px
        silhouette, edges = _silhouette(mesh), _lines(depth_edges(self.depth_m, 2 * focal_px), _LEAST_WIDTHS * grid_px)
        drawn = window.astype(np.float32)
        around = _stroke(silhouette, 2 * grid_px) * ~mesh
        for cover, opacity, color in (
            (around, _HALO_OPACITY, HALO_RGB),
            (np.maximum(_stroke(silhouette, grid_px), _stroke(edges, 0.8 * grid_px)), _LINE_OPACITY, DARK_RGB),
        ):
            height, width = drawn.shape[:2]
            share = cover.reshape(height, 2, width, 2).mean((1, 3))[..., None]
            drawn += opacity * share * (np.asarray(color, np.float32) - drawn)
        return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def depth_edges(depth_m: Array, focal_px: float) -> Array:
    """(h, w) bool: pixels of a mesh's nearer side where its depth jumps; depth_m (h, w), infinite beside the mesh.

    A jump is a difference from the mean of the neighbors on both sides, left and right or above and below: on a plane
    the inverse of depth is linear in the image, so that a slope, however steep, is none.
    """
    inverse = np.where(np.isfinite(depth_m), 1 / depth_m, np.nan)
    edges = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        inner = [slice(None), slice(None)]
        inner[axis] = slice(1, -1)
        before, after = (np.roll(inverse, shift, axis)[tuple(inner)] for shift in (1, -1))
        here = inverse[tuple(inner)]
        nearer_m = (here - (before + after) / 2) / here**2  # of 1/z to z
        limit_m = np.maximum(_STEP_M, _STEP_PX / (here * focal_px)) / 2  # one neighbor jumps, the other does not
        edges[tuple(inner)] |= np.nan_to_num(nearer_m) > np.nan_to_num(limit_m, nan=np.inf)
    return edges


def _lines(edges: Array, least_px: float) -> Array:
    """The mask (h, w) without parts of fewer pixels."""
    _, part_of, facts, _ = cv2.connectedComponentsWithStats(edges.astype(np.uint8), connectivity=8)
    return edges & (facts[:, cv2.CC_STAT_AREA] >= least_px)[part_of]


def _silhouette(mesh: Array) -> Array:
    """The pixels of a mask (h, w) at its border; where the image ends there is none."""
    inner = cv2.erode(mesh.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    return mesh & (inner == 0)


def _stroke(edges: Array, width_px: float) -> Array:
    """(h, w) float32 0..1: coverage of lines of a width along the pixels of a mask."""
    if not edges.any():
        return np.zeros(edges.shape, np.float32)
    distance = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.clip(width_px / 2 - distance + 0.5, 0, 1)
