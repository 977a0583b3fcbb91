"""Degradations of real photos that renderings lack, as training augmentation of crops.

In the physical order: something occludes the hand, exposure and colors are off, the picture is blurred, the hand is
small in it, the sensor adds noise, the photo is stored as a JPEG, the crop is enlarged from it, and an edge of the
photo runs through the crop. Labels do not change.

The random numbers of a sample are a pure function of the seed and its global index, as in `loading.augment`. Those of
an effect do not depend on which others are enabled.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from maskhand.arrays import Array
from maskhand.config import AugmentConfig
from maskhand.loading.augment import PHOTO_STREAM, Draws

OCCLUDER_AREA = (0.02, 0.2)
"""Range of the area of an occluder, as a fraction of the crop."""
OCCLUDER_ASPECT = (1.0, 6.0)
EDGE_DISTANCE = (0.15, 0.5)
"""Range of the distance of a photo's edge from the middle of the crop, in crop sides."""
BEST_JPEG_QUALITY = 95
CHROMA_NOISE = 0.6
"""Fraction of the noise's standard deviation that differs between channels; the remaining variance is common."""
_TILE_STD = 32.0
_TILE_OFFSETS = 256


@dataclass(frozen=True)
class PhotoEffects:
    """The effects on B crops; an effect that a crop does not have is set to its identity."""

    exposure: Array
    """(B, 3) gamma, contrast about mid-gray, brightness in 0..1 that is added; identity 1, 1, 0."""
    saturation: Array
    """(B,) factor on the distance of colors from gray; 0: grayscale, identity 1."""
    blur_px: Array
    """(B,) standard deviation of the blur, crop pixels; identity 0."""
    motion_rad: Array
    """(B,) direction of a motion blur, clockwise; NaN: the blur is a Gaussian."""
    shrink: Array
    """(B,) side of the crop over its side in the photo; identity 1."""
    noise: Array
    """(B,) standard deviation of the noise on the 0..255 scale, in the photo's pixels; identity 0."""
    noise_offset: Array
    """(B, 2) int64, row and column of the noise tile where this crop's noise begins."""
    jpeg_quality: Array
    """(B,) int64; identity 100."""
    occluder: Array
    """(B, 5) rotated box: center x, y and size in crop widths, heights and sides, 0..1; angle in degrees; zero size:
    no occluder."""
    occluder_round: Array
    """(B,) bool: the occluder is an ellipse, not a box."""
    occluder_source: Array
    """(B, 2, 2) content of the occluder: maps offsets from its center to offsets from the crop's middle, pixels."""
    occluder_gain: Array
    """(B, 3) factor on R, G, B of the occluder."""
    edge: Array
    """(B, 2) direction (clockwise, radians) and distance (crop sides) from the middle to the photo's edge;
    identity: an infinite distance."""


def draw_photo_effects(config: AugmentConfig, seed: int, indices: Array) -> PhotoEffects | None:
    """The recipe's effects for the samples with global `indices`; None if the recipe has no effects."""
    if not config.has_photo_effects:
        return None
    draws = Draws(seed, indices, 37, PHOTO_STREAM)
    exposed, colored, blurred, shrunk, noisy, compressed = (draws.uniform(columns=6) < config.effect_probability).T
    gray = draws.uniform()[:, 0] < config.grayscale_probability
    occluded = draws.uniform()[:, 0] < config.occlude_probability
    cut = draws.uniform()[:, 0] < config.edge_probability

    exposure = config.exposure * draws.uniform(-1, 1, columns=3) * exposed[:, None]
    exposure = np.stack([np.exp(exposure[:, 0]), 1 + exposure[:, 1], exposure[:, 2] / 4], axis=1)
    saturation = (1 + config.saturation * draws.uniform(-1, 1)[:, 0] * colored) * ~gray
    blur = config.blur_px * draws.uniform()[:, 0] * blurred
    moving, direction = draws.uniform(columns=2).T
    shrink = np.exp(np.log(config.shrink) * draws.uniform()[:, 0] * shrunk)
    noise = config.noise * draws.uniform()[:, 0] * noisy
    offset = draws.uniform(0, _TILE_OFFSETS, columns=2).astype(np.int64)
    quality = draws.uniform(min(config.jpeg_quality, BEST_JPEG_QUALITY), BEST_JPEG_QUALITY + 1)[:, 0].astype(np.int64)
    quality = np.where(compressed & (config.jpeg_quality < 100), quality, 100)

    area, aspect = draws.uniform(*np.log(OCCLUDER_AREA)), draws.uniform(*np.log(OCCLUDER_ASPECT))
    size = np.exp((area + aspect * [1, -1]) / 2) * occluded[:, None]
    # Around the middle, where the hand is.
    occluder = np.concatenate([0.5 + 0.2 * draws.normal(clip=2, columns=2), size, draws.uniform(0, 180)], axis=1)
    rounded = draws.uniform()[:, 0] < 0.5
    angle, zoom, mirror = draws.uniform(columns=3).T
    source = np.exp(zoom * np.log(0.4))[:, None, None] * _turns(2 * np.pi * angle)
    source[:, :, 0] *= np.where(mirror < 0.5, -1, 1)[:, None]
    same_color, lightness, *tint = draws.uniform(-1, 1, columns=5).T
    # Half of them keep their colors and look like a second hand, as the middle of a crop shows the hand.
    gain = np.exp((0.5 * lightness[:, None] + 0.5 * np.stack(tint, axis=1)) * (same_color > 0)[:, None])

    side, distance = draws.uniform(columns=2).T
    distance = np.where(cut, EDGE_DISTANCE[0] + (EDGE_DISTANCE[1] - EDGE_DISTANCE[0]) * distance, np.inf)
    return PhotoEffects(
        exposure=exposure,
        saturation=saturation,
        blur_px=blur,
        motion_rad=np.where(moving < 0.5, np.pi * direction, np.nan),
        shrink=shrink,
        noise=noise,
        noise_offset=offset,
        jpeg_quality=quality,
        occluder=occluder,
        occluder_round=rounded,
        occluder_source=source,
        occluder_gain=gain,
        edge=np.stack([2 * np.pi * side, distance], axis=1),
    )


def degrade(crops: Array, effects: PhotoEffects) -> None:
    """Apply the effects to crops (B, H, W, 4) uint8 RGBA in place.

    Alpha is unchanged, except that it is 0 beyond the photo's edge; where it is 0, crops stay black.
    """
    tables = exposure_tables(effects.exposure)
    exposed = (effects.exposure != [1, 1, 0]).any(axis=1)
    for row, crop in enumerate(crops):
        rgb = cv2.cvtColor(crop, cv2.COLOR_RGBA2RGB)
        if effects.occluder[row, 2:4].any():
            rgb = occlude(
                rgb,
                effects.occluder[row],
                bool(effects.occluder_round[row]),
                effects.occluder_source[row],
                effects.occluder_gain[row],
            )
        if exposed[row]:
            rgb = cv2.LUT(rgb, tables[row])
        if effects.saturation[row] != 1:
            rgb = saturate(rgb, float(effects.saturation[row]))
        if effects.blur_px[row] > 0:
            rgb = blur(rgb, float(effects.blur_px[row]), float(effects.motion_rad[row]))
        if effects.shrink[row] > 1:
            small = np.maximum(np.round(np.divide(rgb.shape[1::-1], effects.shrink[row])), 1).astype(int)
            rgb = cv2.resize(rgb, small.tolist(), interpolation=cv2.INTER_AREA)
        if effects.noise[row] > 0:
            rgb = add_noise(rgb, float(effects.noise[row]), effects.noise_offset[row], crop.shape[:2])
        if effects.jpeg_quality[row] < 100:
            rgb = compress(rgb, int(effects.jpeg_quality[row]))
        if effects.shrink[row] > 1:
            rgb = cv2.resize(rgb, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        cv2.mixChannels([rgb], [crop], [0, 0, 1, 1, 2, 2])
        if np.isfinite(effects.edge[row, 1]):
            cut_at_edge(crop, *effects.edge[row])
        if not crop[..., 3].all():
            crop[crop[..., 3] == 0] = 0


def exposure_tables(exposure: Array) -> Array:
    """(B, 3) gamma, contrast, brightness -> (B, 256) uint8 lookup tables."""
    gamma, contrast, brightness = exposure.T[..., None]
    level = np.linspace(0, 1, 256) ** gamma
    return np.round(255 * np.clip(contrast * (level - 0.5) + 0.5 + brightness, 0, 1)).astype(np.uint8)


def saturate(rgb: Array, factor: float) -> Array:
    """(H, W, 3) uint8 with the colors' distance from their gray (Rec. 601) multiplied by the factor."""
    gray = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(rgb, factor, gray, 1 - factor, 0)


def blur(rgb: Array, sigma_px: float, motion_rad: float) -> Array:
    """(H, W, 3) uint8 blurred by a Gaussian, or along a line of the same spread if `motion_rad` is not NaN."""
    if np.isnan(motion_rad):
        return cv2.GaussianBlur(rgb, (0, 0), sigma_px)
    return cv2.filter2D(rgb, -1, motion_kernel(sigma_px, motion_rad))


def motion_kernel(sigma_px: float, motion_rad: float) -> Array:
    """(K, K) float32, K odd: a line through the middle; its points have this standard deviation along the line."""
    half = sigma_px * np.sqrt(3)
    steps = 2 * int(np.ceil(2 * half)) + 1
    along = half * (2 * np.arange(steps) + 1 - steps) / steps
    points = along[:, None] * [np.sin(motion_rad), np.cos(motion_rad)]
    reach = int(np.ceil(half))
    cells = np.arange(-reach, reach + 1)
    rows, columns = np.maximum(1 - np.abs(points[..., None] - cells), 0).transpose(1, 0, 2)
    return (rows.T @ columns / steps).astype(np.float32)


def add_noise(rgb: Array, std: float, offset: Array, tile_for: tuple[int, int]) -> Array:
    """(h, w, 3) uint8 with noise of this standard deviation added; tile_for: the largest h and w of all calls."""
    row, column = offset
    tile = _noise_tile(*tile_for)[row : row + rgb.shape[0], column : column + rgb.shape[1]]
    return cv2.addWeighted(rgb, 1.0, tile, std / _TILE_STD, -128 * std / _TILE_STD)


@functools.cache
def _noise_tile(height: int, width: int) -> Array:
    """(height + 256, width + 256, 3) uint8 normal noise of mean 128 and standard deviation 32, large enough for any
    offset."""
    values = np.random.default_rng(0).standard_normal((height + _TILE_OFFSETS, width + _TILE_OFFSETS, 4))
    values = np.sqrt(1 - CHROMA_NOISE**2) * values[..., :1] + CHROMA_NOISE * values[..., 1:]
    return np.clip(np.round(128 + _TILE_STD * values), 0, 255).astype(np.uint8)


def compress(rgb: Array, quality: int) -> Array:
    """(H, W, 3) uint8 after a JPEG with chroma at half the resolution, as cameras store photos."""
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(rgb, quality, "RGB", "420"), "RGB")


def occlude(rgb: Array, box: Array, rounded: bool, source: Array, gain: Array) -> Array:
    """(H, W, 3) uint8 occluded by a box or an ellipse that shows another part of the same picture.

    box (5,), source (2, 2), gain (3,): as in `PhotoEffects`. Other pictures are not used, because a rank has only its
    own rows of the global batch. Beyond its border the picture is mirrored.
    """
    height, width = rgb.shape[:2]
    center = box[:2] * [width, height] - 0.5
    middle = np.array([width, height]) / 2 - 0.5
    affine = np.concatenate([source, (middle - source @ center)[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(rgb, affine, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    shown = cv2.LUT(shown, np.round(np.minimum(np.arange(256)[:, None, None] * gain, 255)).astype(np.uint8))
    rotated = center.tolist(), (box[2:4] * max(height, width)).tolist(), float(box[4])
    mask = np.zeros((height, width), np.uint8)
    if rounded:
        cv2.ellipse(mask, rotated, 255, -1, cv2.LINE_AA)
    else:
        cv2.fillConvexPoly(mask, np.round(16 * cv2.boxPoints(rotated)).astype(np.int32), 255, cv2.LINE_AA, 4)
    weight = mask.astype(np.float32) / np.float32(255)
    return cv2.blendLinear(shown, rgb, weight, 1 - weight)


def cut_at_edge(crop: Array, direction_rad: float, distance: float) -> None:
    """Make a crop (H, W, 4) uint8 black, with alpha 0, beyond a line at this distance (crop sides) from its middle."""
    height, width = crop.shape[:2]
    x = (np.arange(width) - width / 2 + 0.5) * np.cos(direction_rad)
    y = (np.arange(height) - height / 2 + 0.5) * np.sin(direction_rad)
    crop[y[:, None] + x > distance * max(height, width)] = 0


def _turns(angle_rad: Array) -> Array:
    """(B,) -> (B, 2, 2) clockwise rotations of the image."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
