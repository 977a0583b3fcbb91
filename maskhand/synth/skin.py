"""Appearance maps of skin, painted once on the rest pose of the smoothed hand.

Every triangle carries a small grid of texels ("mesh colors", Yuksel et al. 2010), about 0.6 mm apart: fine enough for
creases and nails in a 224-pixel image without a texture atlas, and the same for every hand in MANO's topology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32
from maskhand.conventions import FINGERTIP_VERTICES, FIRST_MANO_JOINT
from maskhand.synth.brushes import distance_to_curve, line, smooth_step, spline, value_noise
from maskhand.synth.surface import HandSurface, incidence_matrix, vertex_normals

TEXELS_PER_EDGE = 4
NOISE_FIELDS = 6
PAINT_SEED = 1


@dataclass(frozen=True)
class SkinMaps:
    """Per texel, float32. Rows are ordered face by face; see `texel_index`."""

    palmar: Array32
    """(T,) 1 on the palm side, 0 on the back."""
    blush: Array32
    """(T,) where blood shows: finger pads, knuckles, ball of the thumb."""
    crease: Array32
    """(T,) lines of palm and fingers."""
    wrinkle: Array32
    """(T,) folds over the knuckles of the back."""
    nail: Array32
    """(T,) nail plate."""
    nail_edge: Array32
    """(T,) fold around the nail."""
    nail_free: Array32
    """(T,) white edge and lunula."""
    tendon: Array32
    """(T,) signed relief of tendons and veins on the back."""
    noise: Array32
    """(T, NOISE_FIELDS) zero-mean, unit deviation, coarse to fine; mixed anew for every hand."""


def texel_grid() -> tuple[NDArray[np.int64], Array32]:
    """Barycentric grid of one triangle: lookup (n+1, n+1) of texel numbers, and (K, 2) their (u, v)."""
    n = TEXELS_PER_EDGE
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    inside = i + j <= n
    lookup = np.zeros((n + 1, n + 1), np.int64)
    lookup[inside] = np.arange(inside.sum())
    return lookup, (np.stack([i[inside], j[inside]], 1) / n).astype(np.float32)


_LOOKUP, _GRID_UV = texel_grid()
TEXELS_PER_FACE = len(_GRID_UV)


def texel_index(face: NDArray[np.int64], u: Array32, v: Array32) -> NDArray[np.int64]:
    """Row of `SkinMaps` nearest to barycentric (u, v) of corners 1 and 2 in each face."""
    i = np.rint(u * TEXELS_PER_EDGE).astype(np.int64)
    j = np.minimum(np.rint(v * TEXELS_PER_EDGE).astype(np.int64), TEXELS_PER_EDGE - i)
    return face * TEXELS_PER_FACE + _LOOKUP[i, np.maximum(j, 0)]


def paint(surface: HandSurface, axes: NDArray[np.float64]) -> SkinMaps:
    """Paint the maps. axes (16, 3, 3): anatomical rows twist, flexion, abduction of each joint in the rest frame."""
    model = surface.model
    vertices = (surface.smooth @ model.v_template_m).astype(np.float32)
    faces = surface.hand_faces
    vertex_normal = vertex_normals(vertices, faces, incidence_matrix(faces, len(vertices)))

    def on_texels(values: Array32) -> Array32:
        a, b, c = (values[faces[:, k]][:, None] for k in range(3))
        u, v = _GRID_UV[:, :1], _GRID_UV[:, 1:]
        return (a * (1 - u - v) + b * u + c * v).reshape(-1, values.shape[1])

    p, n = on_texels(vertices), on_texels(vertex_normal)
    weights = on_texels((surface.smooth @ model.weights).astype(np.float32))
    joints = model.j_regressor @ model.v_template_m
    tips = model.v_template_m[list(FINGERTIP_VERTICES["smplx"])]
    rng = np.random.default_rng(PAINT_SEED)

    palm_weight = weights[:, 0]
    back = np.zeros_like(p)
    back += palm_weight[:, None] * np.array([0, 1, 0], np.float32)
    for j in range(1, 16):
        back += weights[:, j : j + 1] * axes[j, 2].astype(np.float32)
    back /= np.maximum(np.linalg.norm(back, axis=1, keepdims=True), 1e-6)
    facing = (n * back).sum(1)  # 1 on the back, -1 on the palm side
    palmar = smooth_step(-facing, -0.25, 0.45)

    maps = {
        name: np.zeros(len(p), np.float32)
        for name in ("blush", "crease", "wrinkle", "nail", "nail_edge", "nail_free", "tendon")
    }
    wobble = 0.0004 * value_noise(p / 0.008, rng)
    for i, (finger, first) in enumerate(FIRST_MANO_JOINT.items()):
        chain = np.concatenate([joints[first : first + 3], tips[i : i + 1]])
        own = weights[:, first : first + 3].sum(1) > 0.15
        _paint_finger(maps, finger, p, facing, palmar, chain, axes[first : first + 3], own, wobble)
    _paint_palm(maps, p, palmar, facing, palm_weight, joints, wobble)
    noise = np.stack([value_noise(p / s, rng) for s in (0.030, 0.015, 0.007, 0.0035, 0.0018, 0.0011)], 1)
    return SkinMaps(
        palmar=palmar,
        noise=noise,
        **{name: np.clip(value, -1, 1).astype(np.float32) for name, value in maps.items()},
    )


def _paint_finger(
    maps: dict[str, Array32], finger: str, p: Array32, facing: Array32, palmar: Array32,
    chain: NDArray[np.float64], axes: NDArray[np.float64], own: NDArray[np.bool_], wobble: Array32,
) -> None:  # fmt: skip
    """Creases, folds, blush and nail of one finger. chain (4, 3): three joints and the tip."""
    dorsal = 1 - palmar
    for k in range(3):
        bone = axes[k, 0]
        axial = (p - chain[k]) @ bone + wobble
        near = own & (np.linalg.norm(p - chain[k], axis=1) < 0.019)
        # the base joint's crease lies in the web, nearly half-way along the first phalanx
        lines_mm = (
            {0: (17.0,), 1: (-1.2, 1.2), 2: (0.0,)}[k] if finger != "thumb" else {0: (), 1: (0.0,), 2: (0.0, 2.2)}[k]
        )
        for at_mm in lines_mm:
            here = own if at_mm > 10 else near
            maps["crease"] += here * palmar * line(axial - at_mm / 1000, 0.0009)
        if k > 0:
            for at_mm in (-3.2, -1.2, 0.8, 2.6) if k == 1 else (-1.5, 0.2, 1.8):
                maps["wrinkle"] += near * dorsal * line(axial - at_mm / 1000 + wobble, 0.0006)
        spread = 0.0085 if k == 0 else 0.0065
        maps["blush"] += (
            0.75 * (own | (k == 0)) * dorsal * np.exp(-(((p - chain[k]) ** 2).sum(1)) / (2 * spread**2 + 1e-9))
        )
    last = axes[2]
    length = float((chain[3] - chain[2]) @ last[0])
    axial = (p - chain[2]) @ last[0]
    beyond = own & (axial > 0) & (np.linalg.norm(p - chain[2], axis=1) < length * 1.35)
    share = axial / length
    maps["blush"] += beyond * (0.35 + 0.65 * palmar) * smooth_step(share, 0.3, 0.85)

    # nail: a rounded rectangle in (along, around) on the back of the last phalanx
    center_line = (chain[2] + chain[3]) / 2 - p
    across = (p - chain[2]) @ last[1]
    width = {"thumb": 0.0068, "index": 0.0056, "middle": 0.0058, "ring": 0.0054, "little": 0.0045}[finger]
    start, end = 0.52, 1.0
    y = (share - (start + end) / 2) / ((end - start) / 2)
    x = across / width
    distance = (np.abs(x) ** 3.2 + np.abs(y + 0.1 * x**2) ** 3.2) ** (1 / 3.2)
    top = beyond & (facing > 0.1) & (np.linalg.norm(center_line, axis=1) < 0.03)
    plate = top * (1 - smooth_step(distance, 0.92, 1.06))
    maps["nail"] += plate
    maps["nail_edge"] += top * line(distance - 1.05, 0.11)
    maps["nail_free"] += plate * (smooth_step(y, 0.72, 0.86) + 0.45 * smooth_step(-y - 0.35 * x**2, 0.62, 0.8))
    maps["wrinkle"] *= 1 - plate


def _paint_palm(
    maps: dict[str, Array32], p: Array32, palmar: Array32, facing: Array32, palm_weight: Array32,
    joints: NDArray[np.float64], wobble: Array32,
) -> None:  # fmt: skip
    """Lines and pads of the palm, tendons of the back. Curves are drawn in the palm's (x, z) plane."""
    index, middle, little, ring, thumb = (joints[j] for j in (1, 4, 7, 10, 13))
    thumb_mcp, wrist = joints[14], joints[0]
    palm = palm_weight * palmar * smooth_step(-facing, 0.15, 0.6)
    mm_back, mm_radial = np.array([0.001, 0, 0]), np.array([0, 0, 0.001])  # steps to the elbow, to the thumb
    beside = 0.7 * index + 0.3 * wrist + 12 * mm_radial
    curves = {
        "life": [beside, 0.62 * middle + 0.38 * wrist + 13 * mm_radial, 0.4 * middle + 0.6 * wrist + 5 * mm_radial,
                 0.16 * middle + 0.84 * wrist + 8 * mm_radial],
        "head": [beside, 0.7 * middle + 0.3 * wrist + 4 * mm_radial, 0.62 * ring + 0.38 * wrist,
                 0.5 * little + 0.5 * wrist],
        "heart": [0.5 * (index + middle) - 4 * mm_back, middle + 12 * mm_back, ring + 16 * mm_back,
                  little + 18 * mm_back - 10 * mm_radial],
    }  # fmt: skip
    for points in curves.values():
        distance = distance_to_curve(p[:, [0, 2]], spline(np.array(points)[:, [0, 2]])) + wobble
        maps["crease"] += 0.9 * palm * line(distance, 0.0011)
    # the crease of the wrist
    maps["crease"] += 0.5 * palmar * palm_weight * line((p[:, 0] - wrist[0]) + 2 * wobble, 0.0008)
    away = smooth_step(wrist[0] + 0.006 - p[:, 0], 0.0, 0.02)
    for center, radius, strength in (
        (0.5 * (thumb + thumb_mcp), 0.016, 0.8),
        (0.45 * little + 0.55 * wrist + np.array([0, 0, -0.008]), 0.016, 0.7),
        (index, 0.010, 0.6), (middle, 0.010, 0.55), (ring, 0.010, 0.55), (little, 0.010, 0.6),
    ):  # fmt: skip
        distance2 = ((p[:, [0, 2]] - center[[0, 2]]) ** 2).sum(1)
        maps["blush"] += strength * palm * away * np.exp(-distance2 / (2 * radius**2))
    back = palm_weight * smooth_step(facing, 0.3, 0.8)
    for knuckle in (index, middle, ring, little):
        curve = np.stack([knuckle, 0.75 * wrist + 0.25 * middle])[:, [0, 2]]
        distance = distance_to_curve(p[:, [0, 2]], curve)
        maps["tendon"] += back * (np.exp(-((distance / 0.0022) ** 2)) - 0.5 * np.exp(-((distance / 0.005) ** 2)))
    for a, b in ((index, ring), (middle, little), (ring, middle)):
        vein = spline(
            np.array([a + 12 * mm_back - 6 * mm_radial, 0.6 * a + 0.4 * b + 30 * mm_back, 0.4 * b + 0.6 * wrist])[
                :, [0, 2]
            ]
        )
        maps["tendon"] += 0.5 * back * np.exp(-(((distance_to_curve(p[:, [0, 2]], vein) + 2 * wobble) / 0.0013) ** 2))
