"""Pictures of results: keypoints, shaded mesh overlays and contact sheets. Software only, no GL, deterministic.

Meshes are drawn by casting rays with Embree and shading with numpy: four rays a pixel, smooth normals, ambient
occlusion per vertex. Pictures are (H, W, 3) uint8 RGB, pixels with the centre of the top-left pixel at (0, 0).
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskhand.conventions import BONES

Array = np.ndarray

FINGER_RGB = ((230, 57, 70), (244, 162, 45), (82, 183, 74), (52, 144, 220), (155, 93, 229))
"""Thumb, index, middle, ring, little."""
WRIST_RGB = (235, 235, 235)
MESH_RGB = (150, 190, 240)
GROUND_TRUTH_RGB = (178, 220, 160)

# Directions towards the lights in camera axes (x right, y down, z forward): a key light over the viewer's left
# shoulder and a weak fill from the right.
_LIGHTS = ((np.array([-0.45, -0.75, -0.7]), 0.75), (np.array([0.8, -0.1, -0.45]), 0.22))
_SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
_ROWS_AT_ONCE = 64
_OCCLUSION_RAYS = 48
_OCCLUSION_REACH_M = 0.04
_INK, _MUTED, _PAPER, _DARK = (32, 36, 42), (105, 112, 122), (250, 250, 248), (20, 20, 20)


def draw_keypoints(
    image_rgb: Array, joints_px: Array, conf: Array | None = None, occluded: Array | None = None
) -> Array:
    """A copy of the picture with the 21-joint skeleton, coloured by finger, outlined to be seen on busy pictures.

    joints_px (21, 2) OpenPose order; conf (21,) in 0..1 sets the radius and the opacity, 0 or NaN leaves a joint out;
    occluded (21,) bool: joints that something covers, drawn as rings.
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


def draw_label(image_rgb: Array, text: str, corner_px: tuple[float, float]) -> Array:
    """A copy of the picture with outlined text over the point, moved into the picture where it would leave it."""
    height, width = image_rgb.shape[:2]
    text_px = max(11, max(height, width) // 40)
    picture = Image.fromarray(image_rgb)
    draw, font = ImageDraw.Draw(picture), _font(text_px)
    outline = max(1, text_px // 8)
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font, stroke_width=outline)
    x = min(max(corner_px[0], 0), max(width - (x1 - x0), 0)) - x0
    y = min(max(corner_px[1] - (y1 - y0), 0), max(height - (y1 - y0), 0)) - y0
    draw.text((x, y), text, fill=_PAPER, font=font, stroke_width=outline, stroke_fill=_DARK)
    return np.asarray(picture)


def overlay_mesh(
    image_rgb: Array,
    vertices_cam_m: Array,
    faces: Array,
    K_px: Array,
    color: tuple[int, int, int] = MESH_RGB,
    opacity: float = 0.8,
) -> Array:
    """A copy of the picture with a shaded, translucent mesh over it.

    vertices_cam_m (V, 3) metres in OpenCV camera axes, in front of the camera (others are a ValueError); faces (F, 3);
    K_px (3, 3) intrinsics in pixels of this picture, without skew.
    """
    vertices = np.ascontiguousarray(vertices_cam_m, dtype=np.float32)
    if not np.isfinite(vertices).all() or vertices[:, 2].min() <= 0:
        raise ValueError("overlay_mesh: every vertex must be finite and in front of the camera (z > 0)")
    height, width = image_rgb.shape[:2]
    picture = image_rgb.copy()
    projected = vertices[:, :2] / vertices[:, 2:] * (K_px[0, 0], K_px[1, 1]) + (K_px[0, 2], K_px[1, 2])
    x0, y0 = np.maximum(np.floor(projected.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(projected.max(0)).astype(int) + 2, (width, height))
    if x0 >= x1 or y0 >= y1:
        return picture
    tracer = _Tracer(vertices, np.asarray(faces, dtype=np.int32), color)
    for top in range(y0, y1, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, y1)
        rgb, cover = tracer.pixels((x0, top, x1, bottom), K_px)
        window = picture[top:bottom, x0:x1]
        mixed = window * (1 - opacity * cover[..., None]) + 255 * opacity * rgb
        picture[top:bottom, x0:x1] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return picture


def contact_sheet(
    rows: Sequence[Sequence[Array]],
    captions: Sequence[Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    title: str = "",
    tile_px: int = 224,
) -> bytes:
    """Rows of pictures as one PNG: each scaled to fit a square tile, a caption under it, headings over the columns."""
    if not rows or not any(len(row) for row in rows):
        raise ValueError("contact_sheet: no pictures given")
    text_px, gap = max(11, tile_px // 16), max(6, tile_px // 24)
    lines = max((caption.count("\n") + 1 for row in captions or () for caption in row if caption), default=0)
    caption_px = lines * (text_px + 4)
    top = gap + (text_px * 2 if title else 0) + (text_px + gap if columns else 0)
    across = max(len(row) for row in rows)
    size = (across * (tile_px + gap) + gap, top + len(rows) * (tile_px + caption_px + gap) + gap)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), title, fill=_INK, font=_font(round(text_px * 1.3)))
    for c, heading in enumerate(columns):
        draw.text((gap + c * (tile_px + gap), top - text_px - gap // 2), heading, fill=_MUTED, font=_font(text_px))
    for r, row in enumerate(rows):
        y = top + r * (tile_px + caption_px + gap)
        for c, picture in enumerate(row):
            x = gap + c * (tile_px + gap)
            sheet.paste(_fit(picture, tile_px), (x, y))
            if captions and c < len(captions[r]):
                draw.multiline_text((x, y + tile_px + 2), captions[r][c], fill=_INK, font=_font(text_px), spacing=2)
    return png_bytes(np.asarray(sheet))


def bar_tile(values: Array, labels: Sequence[str], colors: Sequence[tuple[int, int, int]], tile_px: int = 224) -> Array:
    """(tile_px, tile_px, 3): one horizontal bar per value in 0..1, labelled."""
    tile = Image.new("RGB", (tile_px, tile_px), (255, 255, 255))
    draw = ImageDraw.Draw(tile)
    row = tile_px / len(values)
    font = _font(max(8, min(round(row * 0.75), tile_px // 16)))
    left, right = tile_px * 0.36, tile_px * 0.97
    for k, (value, label, color) in enumerate(zip(values, labels, colors, strict=True)):
        share = float(np.clip(np.nan_to_num(value), 0, 1))
        y = k * row
        draw.text((tile_px * 0.03, y + row / 2), label, fill=_INK, font=font, anchor="lm")
        draw.rectangle((left, y + row * 0.2, right, y + row * 0.8), fill=(236, 238, 240))
        if share > 0:
            draw.rectangle((left, y + row * 0.2, left + share * (right - left), y + row * 0.8), fill=color)
    return np.asarray(tile)


def png_bytes(image_rgb: Array) -> bytes:
    """A picture as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image_rgb).save(stream, format="PNG")
    return stream.getvalue()


class _Tracer:
    """One mesh ready for rays: Embree scene, smooth normals and ambient occlusion per vertex."""

    def __init__(self, vertices: Array, faces: Array, color: tuple[int, int, int]) -> None:
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

    def pixels(self, window: tuple[int, int, int, int], K_px: Array) -> tuple[Array, Array]:
        """Premultiplied sRGB (h, w, 3) in 0..1 and coverage (h, w) of the window (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = window
        shape = (y1 - y0, x1 - x0)
        rgb, cover = np.zeros((*shape, 3)), np.zeros(shape)
        v, u = np.mgrid[y0:y1, x0:x1].astype(np.float64)
        for dx, dy in _SUBPIXELS:
            rays = np.stack(
                [(u + dx - K_px[0, 2]) / K_px[0, 0], (v + dy - K_px[1, 2]) / K_px[1, 1], np.ones_like(u)], axis=-1
            ).reshape(-1, 3)
            hits = self._cast(np.zeros_like(rays), rays)
            hit = np.flatnonzero(hits["primID"] >= 0)
            shaded = self._shade(rays[hit], {k: hits[k][hit] for k in ("primID", "u", "v")})
            rgb.reshape(-1, 3)[hit] += shaded / len(_SUBPIXELS)
            cover.reshape(-1)[hit] += 1 / len(_SUBPIXELS)
        return rgb, cover

    def _cast(self, origins: Array, directions: Array) -> dict[str, Array]:
        return self.scene.run(origins.astype(np.float32), directions.astype(np.float32), output=True)

    def _shade(self, rays: Array, hits: dict[str, Array]) -> Array:
        corners = self.faces[hits["primID"]]
        share = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], axis=-1)[..., None]
        normals = _unit((self.normals[corners] * share).sum(1))
        openness = (self.openness[corners][..., None] * share).sum(1)
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
        linear = (self.albedo * light * 1.15 + 0.10 * gloss * openness) * contour * np.where(inside, 0.45, 1.0)
        return _srgb(np.clip(linear, 0, 1))

    def _ambient_openness(self, vertices: Array) -> Array:
        """(V,) share of the sky each vertex sees within a few centimetres: 1 = open, 0 = buried."""
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


def _stroke(canvas: Array, a: Array, b: Array, width: float, color: Sequence[int] | Array, opacity: float) -> None:
    """Blend a round-ended, anti-aliased line from a to b (a disc where they are one point) into a float picture.

    color: RGB, or another picture of the same size that the line shows.
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


def _fit(picture: Array, side_px: int) -> Image.Image:
    height, width = picture.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = Image.new("RGB", (side_px, side_px), _PAPER)
    tile.paste(Image.fromarray(resized), ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
    return tile


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
