"""Triangles of arm and objects behind one embree scene: what a ray meets, and how much sky a vertex sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

from maskhand.arrays import Array32
from maskhand.synth.solids import Solid
from maskhand.synth.surface import ArmMesh, HandSurface

OCCLUSION_RAYS = 64
OCCLUSION_RANGE_M = 0.07
# rays start this far above the skin, or they would meet the facet under the smooth surface they start from
RAY_OFFSET_M = 0.0012


class Scene:
    """The geometry of one image, camera axes; the camera is at the origin."""

    def __init__(self, arm: ArmMesh, solids: Sequence[Solid]) -> None:
        self.arm, self.solids = arm, solids
        parts = [(arm.vertices_m, arm.normals, arm.faces)] + [(s.vertices_m, s.normals, s.faces) for s in solids]
        starts = np.cumsum([0] + [len(v) for v, _, _ in parts[:-1]])
        self.vertices = np.concatenate([v for v, _, _ in parts]).astype(np.float32)
        self.normals = np.concatenate([n for _, n, _ in parts]).astype(np.float32)
        self.faces = np.concatenate([f + s for (_, _, f), s in zip(parts, starts, strict=True)])
        # 0 hand, 1 bare forearm, 2 sleeve, 3.. solids
        counts = [arm.hand_faces, arm.sleeve_face - arm.hand_faces, len(arm.faces) - arm.sleeve_face]
        counts += [len(s.faces) for s in solids]
        self.part = np.repeat(np.arange(len(counts)), counts).astype(np.int16)
        self._embree = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._embree, self.vertices, self.faces.astype(np.int32))

    def first_hit(self, directions: Array32) -> dict[str, NDArray]:
        """Rays from the camera: primID (-1: none), u, v, tfar."""
        return self._embree.run(np.zeros_like(directions), directions, output=1)

    def blocked(self, origins: Array32, directions: Array32, reach_m: float) -> NDArray[np.bool_]:
        """(N,) whether something lies within reach."""
        reach = np.full(len(origins), reach_m, np.float32)
        return self._embree.run(origins, directions, reach, query="OCCLUDED") != -1


def _sphere(count: int) -> Array32:
    """(count, 3) evenly spread directions (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1).astype(np.float32)


_DIRECTIONS = _sphere(OCCLUSION_RAYS)


def vertex_occlusion(scene: Scene, surface: HandSurface) -> Array32:
    """(V,) share of the sky each vertex sees, cosine weighted; measured on the 778 vertices, smoothed to the rest."""
    coarse = surface.smooth.shape[1]
    points, normals = scene.vertices[:coarse], scene.normals[:coarse]
    cosine = np.maximum(normals @ _DIRECTIONS.T, 0)
    vertex, ray = np.nonzero(cosine > 0.05)
    origins = points[vertex] + RAY_OFFSET_M * normals[vertex]
    hit = scene.blocked(origins, _DIRECTIONS[ray], OCCLUSION_RANGE_M)
    weight = cosine[vertex, ray]
    seen = np.bincount(vertex, weight * ~hit, coarse) / np.bincount(vertex, weight, coarse).clip(1e-6)
    full = np.ones(len(scene.vertices), np.float32)
    full[: surface.smooth.shape[0]] = surface.smooth @ seen.astype(np.float32)
    return full
