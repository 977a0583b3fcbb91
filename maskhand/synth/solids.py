"""Simple objects a hand can hold or be hidden by: cylinders, cups, boxes, ellipsoids, as shaded triangle meshes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32, Array64

SEGMENTS = 28
KINDS = ("cylinder", "cone", "box", "ellipsoid")


@dataclass(frozen=True)
class Finish:
    """Colors are linear RGB. The pattern is drawn in the solid's unit coordinates."""

    base: Array32
    """(3,)"""
    second: Array32
    """(3,) color of bands, label or stripes."""
    pattern: str
    """`plain`, `bands`, `label`, `checks` or `marble`."""
    frequency: float
    gloss: float
    """Strength of the highlight, 0..1."""
    phase: float


@dataclass(frozen=True)
class Solid:
    vertices_m: Array32
    """(V, 3) camera axes."""
    normals: Array32
    """(V, 3)"""
    local: Array32
    """(V, 3) unit coordinates for the pattern, each in -1..1, the axis last."""
    faces: NDArray[np.int64]
    """(F, 3)"""
    finish: Finish


def make_solid(kind: str, center_m: Array64, frame: Array64, half_m: Array64, finish: Finish) -> Solid:
    """A solid of half sizes half_m (3,) along the columns of frame (3, 3); its axis is the last column."""
    if kind not in KINDS:
        raise ValueError(f"Unknown solid {kind!r}; expected one of {', '.join(KINDS)}.")
    local, normal, faces = {"box": _box, "ellipsoid": _ellipsoid}.get(kind, lambda: _lathe(kind == "cone"))()
    normal = normal / half_m
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Solid(
        vertices_m=((local * half_m) @ frame.T + center_m).astype(np.float32),
        normals=(normal @ frame.T).astype(np.float32),
        local=local.astype(np.float32),
        faces=faces,
        finish=finish,
    )


def colors(finish: Finish, local: Array32) -> Array32:
    """(N, 3) linear albedo at unit coordinates local (N, 3)."""
    x, y, z = local.T
    around = np.arctan2(y, x)
    if finish.pattern == "plain":
        share = np.zeros_like(z)
    elif finish.pattern == "bands":
        share = (np.sin(finish.frequency * np.pi * z + finish.phase) > 0.3).astype(np.float32)
    elif finish.pattern == "label":
        inside = (np.abs(z) < 0.6).astype(np.float32)
        share = inside * (0.7 + 0.3 * (np.sin(3 * finish.frequency * (around + 2 * z) + finish.phase) > 0))
    elif finish.pattern == "checks":
        share = (np.sin(finish.frequency * 2 * around) * np.sin(finish.frequency * np.pi * z + finish.phase) > 0) * 1.0
    else:
        share = 0.5 + 0.5 * np.sin(
            finish.frequency * (2 * z + np.sin(3 * x + finish.phase) + 0.7 * np.sin(5 * y + 2 * finish.phase))
        )
    return (finish.base + share[:, None].astype(np.float32) * (finish.second - finish.base)).astype(np.float32)


def _lathe(taper: bool) -> tuple[Array64, Array64, NDArray[np.int64]]:
    angle = np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    low, high = (0.72, 1.0) if taper else (1.0, 1.0)
    points: list[NDArray] = []
    normals: list[NDArray] = []
    faces: list[NDArray] = []
    for z, radius in ((-1.0, low), (1.0, high)):
        points.append(np.column_stack([radius * circle, np.full(SEGMENTS, z)]))
        normals.append(np.column_stack([circle, np.full(SEGMENTS, (low - high) / 2)]))
    k = np.arange(SEGMENTS)
    nxt = (k + 1) % SEGMENTS
    faces += [np.stack([k, nxt, SEGMENTS + k], 1), np.stack([nxt, SEGMENTS + nxt, SEGMENTS + k], 1)]
    start = 2 * SEGMENTS
    for z, radius in ((-1.0, low), (1.0, high)):
        points.append(np.concatenate([np.column_stack([radius * circle, np.full(SEGMENTS, z)]), [[0, 0, z]]]))
        normals.append(np.tile([0.0, 0.0, z], (SEGMENTS + 1, 1)))
        cap = np.stack([start + k, start + nxt, np.full(SEGMENTS, start + SEGMENTS)], 1)
        faces.append(cap if z > 0 else cap[:, ::-1])
        start += SEGMENTS + 1
    return np.concatenate(points), np.concatenate(normals), np.concatenate(faces)


def _box() -> tuple[Array64, Array64, NDArray[np.int64]]:
    points: list[NDArray] = []
    normals: list[NDArray] = []
    faces: list[NDArray] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
            face = np.insert(corners, axis, sign, axis=1)
            flip = (sign < 0) ^ (axis == 1)
            start = 4 * len(points)
            quad = np.array([[0, 1, 2], [0, 2, 3]])
            faces.append(start + (quad[:, ::-1] if flip else quad))
            points.append(face)
            normals.append(np.tile(np.eye(3)[axis] * sign, (4, 1)))
    return np.concatenate(points), np.concatenate(normals), np.concatenate(faces)


def _ellipsoid() -> tuple[Array64, Array64, NDArray[np.int64]]:
    rows = SEGMENTS // 2
    polar, angle = np.meshgrid(
        np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False), indexing="ij"
    )
    points = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)], -1).reshape(-1, 3)
    r, k = np.meshgrid(np.arange(rows), np.arange(SEGMENTS), indexing="ij")
    nxt = (k + 1) % SEGMENTS
    a, b, c, d = r * SEGMENTS + k, r * SEGMENTS + nxt, (r + 1) * SEGMENTS + k, (r + 1) * SEGMENTS + nxt
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return points, points.copy(), faces
