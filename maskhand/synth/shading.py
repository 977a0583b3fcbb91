"""Light leaving skin, cloth and objects towards the camera, in linear RGB."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32
from maskhand.synth.brushes import smooth_step
from maskhand.synth.raycast import RAY_OFFSET_M, Scene
from maskhand.synth.skin import SkinMaps, texel_index
from maskhand.synth.solids import colors

# few, because shadows are smoothed over neighboring pixels
SHADOW_RAYS = 2
# red light travels furthest inside skin, so it wraps furthest around a curve (linear RGB)
SKIN_WRAP = np.array([0.42, 0.24, 0.16], np.float32)
OBJECT_WRAP = np.array([0.08, 0.08, 0.08], np.float32)


@dataclass(frozen=True)
class Skin:
    """Albedo of one person's skin, linear RGB."""

    back: Array32
    """(3,) back of the hand."""
    palm: Array32
    """(3,)"""
    blush: Array32
    """(3,) factor where blood shows fully."""
    nail: Array32
    """(3,)"""
    mottle: Array32
    """(NOISE_FIELDS,) amplitude of each noise field on brightness."""
    mottle_red: Array32
    """(NOISE_FIELDS,) amplitude on redness."""
    relief: float
    """Strength of creases, wrinkles and tendons, around one."""
    gloss: float
    """Strength of the highlight, 0..1."""


@dataclass(frozen=True)
class Light:
    """Key light and surroundings, camera axes, linear RGB."""

    to_key: Array32
    """(3,) unit vector to the key light."""
    key: Array32
    """(3,)"""
    softness: float
    """Radius of the key light, as the tangent of its half angle."""
    up: Array32
    """(3,) unit vector to the sky."""
    sky: Array32
    """(3,)"""
    ground: Array32
    """(3,)"""


@dataclass(frozen=True)
class Cloth:
    base: Array32
    """(3,) linear RGB."""
    stripe: Array32
    """(3,)"""
    stripe_per_m: float
    """0 for none."""


class Shader:
    """Light leaving the first surface along rays from the camera."""

    def __init__(
        self, scene: Scene, occlusion: Array32, maps: SkinMaps, skin: Skin, cloth: Cloth, light: Light,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.scene, self.occlusion, self.maps = scene, occlusion, maps
        self.skin, self.cloth, self.light, self.rng = skin, cloth, light, rng

    def __call__(
        self, rays: Array32, grid: tuple[int, int] | None = None
    ) -> tuple[Array32, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int16], Array32]:
        """rays (N, 3) -> light (N, 3), covered (N,), is hand (N,), part (N,) (-1: none), depth (N,).

        When the rays are a grid of pixels (rows, columns), shadows are smoothed over it.
        """
        scene = self.scene
        found = scene.first_hit(rays)
        hit = found["primID"] >= 0
        index = np.flatnonzero(hit)
        face = found["primID"][index].astype(np.int64)
        u, v = found["u"][index], found["v"][index]
        depth = np.zeros(len(rays), np.float32)
        depth[index] = found["tfar"][index]
        part = np.full(len(rays), -1, np.int16)
        part[index] = scene.part[face]
        light = np.zeros((len(rays), 3), np.float32)
        share = np.stack([1 - u - v, u, v], 1)
        corners = scene.faces[face]
        normal = np.einsum("nk,nkc->nc", share, scene.normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-8)
        lit = self._key_visibility(rays[index] * depth[index, None], normal)
        if grid is not None:
            sheet = np.zeros(len(rays), np.float32)
            sheet[index] = lit
            lit = _smoothed(sheet.reshape(grid), hit.reshape(grid)).reshape(-1)[index]
        light[index] = self._shade(rays[index], normal, lit, face, corners, share, part[index])
        return light, hit, part == 0, part, depth

    def _shade(
        self, rays: Array32, normal: Array32, lit: Array32, face: NDArray[np.int64], corners: NDArray[np.int64],
        share: Array32, part: NDArray[np.int16],
    ) -> Array32:  # fmt: skip
        scene, light = self.scene, self.light
        view = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
        open_sky = (share * self.occlusion[corners]).sum(1)

        albedo = np.empty((len(face), 3), np.float32)
        gloss = np.empty(len(face), np.float32)
        sharp = np.full(len(face), 22.0, np.float32)
        for k in range(3 + len(scene.solids)):
            here = np.flatnonzero(part == k)
            if not len(here):
                continue
            if k == 0:
                albedo[here], gloss[here], sharp[here] = self._skin(
                    texel_index(face[here], share[here, 1], share[here, 2])
                )
            elif k < 3:
                behind = (share[here] * scene.arm.wrist_distance_m[corners[here]]).sum(1)
                inner = (share[here] * scene.arm.palmar[corners[here]]).sum(1)
                noise = np.einsum("nk,nkf->nf", share[here], scene.arm.noise[corners[here]])
                albedo[here], gloss[here] = self._forearm(inner, behind, noise) if k == 1 else self._sleeve(behind)
            else:
                solid = scene.solids[k - 3]
                start = len(scene.vertices) - sum(len(s.vertices_m) for s in scene.solids[k - 3 :])
                local = np.einsum("nk,nkc->nc", share[here], solid.local[corners[here] - start])
                albedo[here] = colors(solid.finish, local)
                gloss[here], sharp[here] = solid.finish.gloss, 45.0

        is_skin = (part <= 1)[:, None]
        n_dot_l = (normal @ light.to_key)[:, None]
        wrap = np.where(is_skin, SKIN_WRAP, OBJECT_WRAP)
        diffuse = np.clip((n_dot_l + wrap) / (1 + wrap), 0, 1) / (1 + wrap)
        # a soft shadow edge on skin is red for the same reason
        shadow = np.where(is_skin, lit[:, None] ** np.array([0.7, 1.0, 1.15], np.float32), lit[:, None])
        # facing away from the key nothing arrives except what wraps, whatever the shadow rays said
        light_in = diffuse * shadow * light.key
        height = (0.5 + 0.5 * (normal @ light.up))[:, None]
        ambient = light.ground + (light.sky - light.ground) * height
        # light that enters a cleft bounces between its skin walls and comes out colored by them
        cleft = open_sky[:, None] / (1 - albedo * (1 - open_sky[:, None]) * 0.8)
        out = albedo * (light_in + ambient * cleft)

        half = light.to_key + view
        half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
        peak = np.clip((normal * half).sum(1), 0, 1) ** sharp * (sharp + 8) / 30
        facing = np.clip((normal * view).sum(1), 0, 1)
        fresnel = 0.04 + 0.96 * (1 - facing) ** 5
        shine = gloss * (0.05 * peak * lit * np.clip(n_dot_l[:, 0] * 4, 0, 1))
        rim = gloss * 0.35 * fresnel * open_sky
        return out + shine[:, None] * light.key + rim[:, None] * ambient

    def _key_visibility(self, point: Array32, normal: Array32) -> Array32:
        """(N,) share of the key light that is seen; the light is a disk, sampled at random points."""
        light = self.light
        origin = np.repeat(point + RAY_OFFSET_M * normal, SHADOW_RAYS, axis=0)
        jitter = self.rng.standard_normal((len(origin), 3), dtype=np.float32)
        to_light = light.to_key + light.softness * 0.5 * jitter
        return 1 - self.scene.blocked(origin, to_light, 10.0).reshape(-1, SHADOW_RAYS).mean(1, dtype=np.float32)

    def _skin(self, texel: NDArray[np.int64]) -> tuple[Array32, Array32, Array32]:
        """Albedo (N, 3), gloss (N,), sharpness (N,)."""
        maps, skin = self.maps, self.skin
        palmar = maps.palmar[texel][:, None]
        nail = maps.nail[texel]
        albedo = skin.back + (skin.palm - skin.back) * palmar
        blush = maps.blush[texel] * (0.55 + 0.45 * palmar[:, 0]) + maps.noise[texel] @ skin.mottle_red
        albedo = self._tinted(albedo, blush)
        grain = maps.noise[texel] @ skin.mottle
        folds = 0.36 * maps.crease[texel] + 0.20 * maps.wrinkle[texel] - 0.05 * maps.tendon[texel]
        albedo = albedo * np.clip(1 + grain - skin.relief * folds, 0.2, 1.6)[:, None]
        albedo += nail[:, None] * (skin.nail - albedo)
        albedo += (0.65 * maps.nail_free[texel])[:, None] * (np.float32(0.72) - albedo)
        albedo *= (1 - 0.35 * np.clip(maps.nail_edge[texel], 0, 1))[:, None]
        return albedo, skin.gloss * (1 + 2.2 * nail), 22 + 50 * nail

    def _forearm(self, palmar: Array32, behind: Array32, noise: Array32) -> tuple[Array32, Array32]:
        """The inner side stays somewhat paler up the arm; palmar (N,) as in `ArmMesh`."""
        skin = self.skin
        inner = smooth_step(palmar, -0.25, 0.45) * (0.45 + 0.55 * np.exp(-behind / 0.04))
        albedo = skin.back + (skin.palm - skin.back) * inner[:, None]
        albedo = self._tinted(albedo, noise @ skin.mottle_red[:2]) * (1 + noise @ skin.mottle[:2])[:, None]
        return albedo.astype(np.float32), np.full(len(behind), skin.gloss, np.float32)

    def _tinted(self, albedo: Array32, blush: Array32) -> Array32:
        return albedo * (1 + np.clip(blush, -0.25, 1.3)[:, None] * (self.skin.blush - 1))

    def _sleeve(self, behind: Array32) -> tuple[Array32, Array32]:
        cloth = self.cloth
        stripe = (
            (np.sin(2 * np.pi * cloth.stripe_per_m * behind) > 0.4) if cloth.stripe_per_m else np.zeros(len(behind))
        )
        albedo = cloth.base + stripe[:, None].astype(np.float32) * (cloth.stripe - cloth.base)
        return albedo.astype(np.float32), np.full(len(behind), 0.05, np.float32)


def _smoothed(values: Array32, valid: NDArray[np.bool_]) -> Array32:
    """Mean over 3 x 3 pixels of the valid ones."""
    weight = cv2.blur(valid.astype(np.float32), (3, 3))
    return np.asarray(cv2.blur(values, (3, 3)) / np.maximum(weight, 1e-6), np.float32)
