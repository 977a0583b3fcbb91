"""From light to a photograph: compositing, exposure, white balance, tone, lens blur, sensor noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32
from maskhand.synth.background import Image
from maskhand.synth.renderer import Layer

GRAIN_PX = 1024
GRAIN_SEED = 3
_LEVELS = np.arange(256, dtype=np.float32) / 255
SRGB_TO_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
# 12-bit table: linear to sRGB by lookup is ten times faster than the power
_STEPS = np.arange(4096, dtype=np.float32) / 4095
LINEAR_TO_SRGB = np.where(_STEPS <= 0.0031308, 12.92 * _STEPS, 1.055 * _STEPS ** (1 / 2.4) - 0.055).astype(np.float32)


@dataclass(frozen=True)
class Grade:
    """The camera settings of one image."""

    exposure: float
    """Gain on the foreground's light after metering."""
    balance: Array32
    """(3,) white balance gains on everything."""
    contrast: float
    blur_px: float
    motion_px: float
    motion_rad: float
    noise: float
    """Standard deviation at middle gray, 0..1 scale."""
    vignette: float
    jpeg_quality: int


def sample_grade(rng: np.random.Generator) -> Grade:
    warmth, tint = rng.normal(0, 0.07), rng.normal(0, 0.025)
    return Grade(
        exposure=float(np.exp(rng.normal(0, 0.16))),
        balance=np.exp(np.array([warmth + tint / 2, -tint, -warmth + tint / 2])).astype(np.float32),
        contrast=float(np.exp(rng.normal(0, 0.10))),
        blur_px=float(rng.uniform(0.35, 0.95)),
        motion_px=float(rng.uniform(2, 5)) if rng.random() < 0.06 else 0.0,
        motion_rad=float(rng.uniform(0, np.pi)),
        noise=float(rng.uniform(0.003, 0.013)),
        vignette=float(rng.uniform(0, 0.25)),
        jpeg_quality=int(rng.integers(82, 97)),
    )


def srgb_to_linear(color_255: NDArray[np.generic] | tuple[float, ...]) -> Array32:
    """sRGB 0..255 to linear 0..1."""
    return SRGB_TO_LINEAR[np.clip(np.rint(np.asarray(color_255, np.float64)), 0, 255).astype(np.uint8)]


def meter(layer: Layer, skin_luminance: float) -> float:
    """Gain that brings the hand to the brightness a camera would choose; dark skin stays darker than light skin."""
    weight = layer.hand
    seen = float((layer.light @ np.array([0.21, 0.72, 0.07], np.float32) * weight).sum() / max(weight.sum(), 1e-6))
    return 0.30 * (max(skin_luminance, 0.02) / 0.35) ** 0.65 / max(seen, 1e-4)


def develop(layer: Layer, gain: float, background: Image, grade: Grade, rng: np.random.Generator) -> Image:
    """One photograph (H, W, 3) sRGB uint8 of the layer in front of the background."""
    height, width = layer.alpha.shape
    light = layer.light * np.float32(gain * grade.exposure)
    # highlights roll off instead of clipping
    light = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.5), light)
    linear = light + (1 - layer.alpha[..., None]) * SRGB_TO_LINEAR[background]
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    linear *= (1 - grade.vignette * (ys + xs) / 2)[..., None] * grade.balance
    linear = cv2.GaussianBlur(linear, (5, 5), grade.blur_px)
    if grade.motion_px:
        linear = cv2.filter2D(linear, -1, _streak(grade.motion_px, grade.motion_rad))
    image = LINEAR_TO_SRGB[(np.clip(linear, 0, 1) * 4095).astype(np.int16)]
    image = 0.5 + (image - 0.5) * np.float32(grade.contrast)
    sheet = _grain()
    y, x = (int(rng.integers(GRAIN_PX - n)) for n in (height, width))
    image += np.float32(grade.noise) * sheet[y : y + height, x : x + width]
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


@cache
def _grain() -> Array32:
    """(GRAIN_PX, GRAIN_PX, 3) unit noise to cut pieces from; drawing it anew would take a third of an image's time."""
    noise = np.random.default_rng(GRAIN_SEED).standard_normal((GRAIN_PX, GRAIN_PX, 3), dtype=np.float32)
    # sensors correlate neighbors through demosaicing
    return np.asarray(2 * cv2.blur(noise, (2, 2)))


def _streak(length_px: float, angle_rad: float) -> Array32:
    size = 7
    kernel = np.zeros((size, size), np.float32)
    for t in np.linspace(-0.5, 0.5, 24):
        x, y = size // 2 + t * length_px * np.cos(angle_rad), size // 2 + t * length_px * np.sin(angle_rad)
        kernel[int(np.clip(np.rint(y), 0, size - 1)), int(np.clip(np.rint(x), 0, size - 1))] += 1
    return kernel / kernel.sum()


def encode_jpeg(image: Image, quality: int) -> bytes:
    """JPEG bytes of an RGB or a gray image."""
    ok, data = cv2.imencode(".jpg", image[..., ::-1] if image.ndim == 3 else image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a JPEG of shape {image.shape} at quality {quality}.")
    return data.tobytes()
