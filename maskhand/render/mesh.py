"""Shaded meshes over images: rays cast with Embree, shaded with numpy.

Four rays a pixel, smooth normals, ambient occlusion per vertex; outlined on request (`render/outline.py`).
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array
from maskhand.render.outline import Outline

MESH_RGB = (150, 190, 240)
GROUND_TRUTH_RGB = (178, 220, 160)

# Directions towards the lights in camera axes (x right, y down, z forward): a key light over the viewer's left
# shoulder and a weak fill from the right.
_LIGHTS = ((np.array([-0.45, -0.75, -0.7]), 0.75), (np.array([0.8, -0.1, -0.45]), 0.22))
_SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
_ROWS_AT_ONCE = 64
_OCCLUSION_RAYS = 48
_OCCLUSION_REACH_M = 0.04


def overlay_mesh(
    image_rgb: Array,
    vertices_cam_m: Array,
    faces: Array,
    K_px: Array,
    color: tuple[int, int, int] | Array = MESH_RGB,
    opacity: float = 0.8,
    outline_px: float = 0.0,
) -> Array:
    """Draw a shaded, translucent mesh on a copy of the image.

    vertices_cam_m (V, 3) meters in OpenCV camera axes, in front of the camera (others are a ValueError); faces (F, 3);
    K_px (3, 3) intrinsics in pixels of this image, which may be turned about the optical axis. color: RGB 0..255, or
    (V, 3), one for each vertex. outline_px: width of lines along silhouette and depth edges; 0 draws none.
    """
    vertices = np.ascontiguousarray(vertices_cam_m, dtype=np.float32)
    if not np.isfinite(vertices).all() or vertices[:, 2].min() <= 0:
        raise ValueError("overlay_mesh: every vertex must be finite and in front of the camera (z > 0)")
    height, width = image_rgb.shape[:2]
    image = image_rgb.copy()
    projected = vertices[:, :2] / vertices[:, 2:] @ K_px[:2, :2].T + K_px[:2, 2]
    x0, y0 = np.maximum(np.floor(projected.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(projected.max(0)).astype(int) + 2, (width, height))
    if x0 >= x1 or y0 >= y1:
        return image
    tracer = _Tracer(vertices, np.asarray(faces, dtype=np.int32), color)
    outline = Outline((y1 - y0, x1 - x0), outline_px) if outline_px > 0 else None
    for top in range(y0, y1, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, y1)
        rgb, cover, depth_m = tracer.pixels((x0, top, x1, bottom), K_px)
        if outline is not None:
            outline.add(depth_m, top - y0)
        window = image[top:bottom, x0:x1]
        mixed = window * (1 - opacity * cover[..., None]) + 255 * opacity * rgb
        image[top:bottom, x0:x1] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    if outline is not None:
        image[y0:y1, x0:x1] = outline.drawn_on(image[y0:y1, x0:x1], float(np.sqrt(np.linalg.det(K_px[:2, :2]))))
    return image


class _Tracer:
    """A mesh for ray tracing: Embree scene, smooth normals and ambient occlusion per vertex."""

    def __init__(self, vertices: Array, faces: Array, color: tuple[int, int, int] | Array) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.faces = faces
        self.albedo = _linear(np.array(color) / 255.0)
        self.scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self.scene, vertices, faces)
        corners = vertices[faces].astype(np.float64)
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros((len(vertices), 3))
        for corner in range(3):
            np.add.at(normals, faces[:, corner], face_normals)
        self.normals = _unit(normals)
        self.openness = self._ambient_openness(vertices)

    def pixels(self, window: tuple[int, int, int, int], K_px: Array) -> tuple[Array, Array, Array]:
        """Premultiplied sRGB (h, w, 3) in 0..1, coverage (h, w) and depth (2h, 2w) of the window (x0, y0, x1, y1).

        Depth is z in meters of every ray, infinite beside the mesh.
        """
        x0, y0, x1, y1 = window
        shape = (y1 - y0, x1 - x0)
        rgb, cover, depth_m = np.zeros((*shape, 3)), np.zeros(shape), np.empty((2 * shape[0], 2 * shape[1]), np.float32)
        v, u = np.mgrid[y0:y1, x0:x1].astype(np.float64)
        ray_from_px = np.linalg.inv(K_px)
        for dx, dy in _SUBPIXELS:
            rays = np.stack([u + dx, v + dy, np.ones_like(u)], axis=-1).reshape(-1, 3) @ ray_from_px.T
            hits = self._cast(np.zeros_like(rays), rays)
            seen = hits["primID"] >= 0
            hit = np.flatnonzero(seen)
            # the direction's z is 1, so that the distance along a ray is its depth
            depth_m[int(dy > 0) :: 2, int(dx > 0) :: 2] = np.where(seen, hits["tfar"], np.inf).reshape(shape)
            shaded = self._shade(rays[hit], {k: hits[k][hit] for k in ("primID", "u", "v")})
            rgb.reshape(-1, 3)[hit] += shaded / len(_SUBPIXELS)
            cover.reshape(-1)[hit] += 1 / len(_SUBPIXELS)
        return rgb, cover, depth_m

    def _cast(self, origins: Array, directions: Array) -> dict[str, Array]:
        return self.scene.run(origins.astype(np.float32), directions.astype(np.float32), output=True)

    def _shade(self, rays: Array, hits: dict[str, Array]) -> Array:
        corners = self.faces[hits["primID"]]
        barycentric = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], axis=-1)[..., None]
        normals = _unit((self.normals[corners] * barycentric).sum(1))
        openness = (self.openness[corners][..., None] * barycentric).sum(1)
        towards_viewer = _unit(-rays)
        facing = (normals * towards_viewer).sum(1, keepdims=True)
        inside = facing < 0  # the open wrist shows the mesh's inside: lit from its other face, darker
        normals, facing = np.where(inside, -normals, normals), np.abs(facing)
        sky = 0.5 - 0.5 * normals[:, 1:2]
        light = openness * (0.16 + 0.20 * sky)
        gloss = np.zeros_like(facing)
        for direction, strength in _LIGHTS:
            towards_light = direction / np.linalg.norm(direction)
            lambert = normals @ towards_light[:, None]
            light = light + strength * (0.35 + 0.65 * openness) * np.clip((lambert + 0.2) / 1.2, 0, None)
            halfway = _unit(towards_light + towards_viewer)
            gloss = gloss + strength * np.clip((normals * halfway).sum(1, keepdims=True), 0, None) ** 40
        contour = 0.45 + 0.55 * np.clip(facing / 0.45, 0, 1)
        albedo = self.albedo if self.albedo.ndim == 1 else (self.albedo[corners] * barycentric).sum(1)
        linear = (albedo * light * 1.15 + 0.10 * gloss * openness) * contour * np.where(inside, 0.45, 1.0)
        return _srgb(np.clip(linear, 0, 1))

    def _ambient_openness(self, vertices: Array) -> Array:
        """(V,) unoccluded fraction of the hemisphere within a few centimeters of each vertex."""
        directions = _hemisphere(_OCCLUSION_RAYS)
        helper = np.where(np.abs(self.normals[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]])
        tangent = _unit(np.cross(self.normals, helper))
        frame = np.stack([tangent, np.cross(self.normals, tangent), self.normals], axis=1)
        rays = np.einsum("rk,vkc->vrc", directions, frame)
        origins = np.repeat((vertices + 4e-4 * self.normals)[:, None], _OCCLUSION_RAYS, axis=1)
        hits = self._cast(origins.reshape(-1, 3), rays.reshape(-1, 3))
        blocked = (hits["primID"] >= 0) & (hits["tfar"] < _OCCLUSION_REACH_M)
        near = np.where(blocked, 1 - hits["tfar"] / _OCCLUSION_REACH_M, 0.0)
        return 1 - near.reshape(len(vertices), -1).mean(1)


def _hemisphere(count: int) -> Array:
    """(count, 3) cosine-weighted directions about +z on a Fibonacci spiral."""
    k = np.arange(count) + 0.5
    radius, angle = np.sqrt(k / count), k * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - k / count)], axis=1)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _linear(srgb: Array) -> Array:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear: Array) -> Array:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
