"""Procedural backgrounds: walls, tables, shelves, foliage, cloth, screens, clutter. Images in sRGB, uint8."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array32

Image = NDArray[np.uint8]

KINDS = ("backdrop", "room", "texture", "patches", "cloth")
KIND_SHARES = (0.12, 0.40, 0.18, 0.16, 0.14)


def make_background(rng: np.random.Generator, size_px: tuple[int, int], kind: str | None = None) -> Image:
    """(H, W, 3) of a random kind, or of the given one of `KINDS`."""
    if kind is None:
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
    if kind not in KINDS:
        raise ValueError(f"Unknown background {kind!r}; expected one of {', '.join(KINDS)}.")
    painter = {"backdrop": _backdrop, "room": _room, "texture": _texture, "patches": _patches, "cloth": _cloth}[kind]
    image = np.clip(painter(rng, size_px), 0, 255).astype(np.uint8)
    if kind != "backdrop":
        for _ in range(rng.integers(0, 5)):
            _thing(rng, image)
        blur = rng.choice([0.0, 0.8, 1.6, 3.0, 5.0])
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), float(blur))
    return _light_falloff(rng, image)


def _color(rng: np.random.Generator, saturation: float) -> Array32:
    """(3,) 0..255; most things in the world are grayish."""
    hue, value = rng.uniform(0, 180), rng.uniform(25, 245)
    s = 255 * saturation * rng.beta(0.7, 2.0)
    pixel = np.array([[[hue, s, value]]]).astype(np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _tuple(color: Array32) -> tuple[int, int, int]:
    return (int(color[0]), int(color[1]), int(color[2]))


def _noise(rng: np.random.Generator, size_px: tuple[int, int], cells: tuple[float, float], octaves: int = 3) -> Array32:
    """(H, W) smooth noise in 0..1; cells across (width, height)."""
    width, height = size_px
    out = np.zeros((height, width), np.float32)
    for k in range(octaves):
        shape = (max(int(cells[1] * 2**k), 2), max(int(cells[0] * 2**k), 2))
        grid = rng.random(shape, dtype=np.float32)
        out += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**k
    low, high = float(out.min()), float(out.max())
    return (out - low) / max(high - low, 1e-6)


def _mix(a: Array32, b: Array32, share: Array32) -> Array32:
    return a + share[..., None] * (b - a)


def _backdrop(rng: np.random.Generator, size_px: tuple[int, int]) -> Array32:
    """A curtain or a wall close behind, green now and then as in a studio."""
    base = _color(rng, 0.8) if rng.random() < 0.7 else np.array([60, 150, 70], np.float32)
    folds = _noise(rng, size_px, (rng.uniform(2, 9), rng.uniform(1, 2)), 2)
    return _mix(base * 0.75, base * 1.1, folds)


def _room(rng: np.random.Generator, size_px: tuple[int, int]) -> Array32:
    """A wall above, a table or floor below, with bars, frames and openings."""
    width, height = size_px
    wall = _mix(_color(rng, 0.35), _color(rng, 0.35) * 0.3 + 110, _noise(rng, size_px, (2, 2), 2) * 0.5)
    grain = _noise(rng, size_px, (rng.uniform(2, 5), rng.uniform(20, 60)), 2)
    tone = np.array([rng.uniform(90, 200), 0, 0], np.float32)
    tone[1:] = tone[0] * np.array([rng.uniform(0.65, 0.98), rng.uniform(0.4, 0.95)])
    table = _mix(tone * 0.8, tone * 1.08, grain)
    angle, horizon = rng.normal(0, 0.15), rng.uniform(0.1, 0.95) * height
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    below = np.clip((ys - horizon - np.tan(angle) * (xs - width / 2)) / 1.5, 0, 1)
    image = np.ascontiguousarray(np.clip(_mix(wall, table, below), 0, 255))
    for _ in range(rng.integers(0, 5)):
        _frame(rng, image)
    for _ in range(rng.integers(0, 4)):
        _bar(rng, image)
    return image


def _texture(rng: np.random.Generator, size_px: tuple[int, int]) -> Array32:
    """Foliage, gravel, carpet, stone: three colors through two noises."""
    cells = float(rng.choice([4, 9, 18, 36]))
    stretch = np.exp(rng.normal(0, 0.4))
    a, b = _noise(rng, size_px, (cells, cells * stretch), 4), _noise(rng, size_px, (cells / 2, cells / 2), 3)
    first = _color(rng, 0.9)
    colors = [first, first * rng.uniform(0.3, 0.7) + 12, _color(rng, 0.8) * 0.5 + first * 0.5]
    sharp = rng.uniform(2, 9)
    image = _mix(colors[0], colors[1], np.clip((a - 0.5) * sharp + 0.5, 0, 1))
    return _mix(image, colors[2], np.clip((b - 0.6) * sharp + 0.5, 0, 1))


def _patches(rng: np.random.Generator, size_px: tuple[int, int]) -> Array32:
    """Posters, screens, paper, shelves: overlapping quadrilaterals with lines of print."""
    width, height = size_px
    image = np.tile(_color(rng, 0.5), (height, width, 1))
    for _ in range(rng.integers(4, 16)):
        center = rng.uniform(-0.1, 1.1, 2) * [width, height]
        half = rng.uniform(0.05, 0.4, 2) * width
        turn = rng.normal(0, 0.25)
        c, s = np.cos(turn), np.sin(turn)
        corners = (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half) @ np.array([[c, s], [-s, c]]) + center
        cv2.fillPoly(image, [corners.astype(np.int32)], _tuple(_color(rng, 0.9)), cv2.LINE_AA)
        if rng.random() < 0.4:
            ink = _tuple(_color(rng, 0.6) * 0.5)
            for row in np.linspace(-0.8, 0.8, rng.integers(3, 9)):
                a = np.array([-0.85, row]) * half
                b = np.array([rng.uniform(0.1, 0.85), row]) * half
                p, q = (np.stack([a, b]) @ np.array([[c, s], [-s, c]]) + center).astype(int)
                cv2.line(image, (int(p[0]), int(p[1])), (int(q[0]), int(q[1])), ink, 1, cv2.LINE_AA)
    return image


def _cloth(rng: np.random.Generator, size_px: tuple[int, int]) -> Array32:
    """A person's clothes behind the hand: folds, stripes or checks, sometimes a patch of bare skin."""
    width, height = size_px
    base = _color(rng, 0.8)
    folds = _noise(rng, size_px, (rng.uniform(2, 6), rng.uniform(1, 3)), 3)
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    turn, period = rng.uniform(0, np.pi), rng.uniform(5, 30)
    wave = np.sin((xs * np.cos(turn) + ys * np.sin(turn) + 14 * folds) * 2 * np.pi / period)
    if rng.random() < 0.5:
        other = np.sin((ys * np.cos(turn) - xs * np.sin(turn) + 14 * folds) * 2 * np.pi / period)
        wave = np.maximum(wave, other)
    share = np.clip(wave * 4, 0, 1) * (rng.random() < 0.5)
    image = _mix(base, _color(rng, 0.7), share) * (0.55 + 0.6 * folds[..., None])
    if rng.random() < 0.5:
        image = np.ascontiguousarray(np.clip(image, 0, 255))
        tone = np.array([215, 165, 135], np.float32) * rng.uniform(0.45, 1.05)
        center = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = (int(rng.uniform(0.08, 0.3) * width), int(rng.uniform(0.1, 0.45) * width))
        cv2.ellipse(image, center, axes, rng.uniform(0, 180), 0, 360, _tuple(tone), -1, cv2.LINE_AA)
    return image


def _frame(rng: np.random.Generator, image: Array32) -> None:
    """A rectangle on the wall: window, cupboard, monitor, with a darker rim."""
    height, width = image.shape[:2]
    x, y = rng.uniform(-0.2, 1.0, 2) * [width, height]
    w, h = rng.uniform(0.15, 0.6, 2) * width
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) + rng.normal(0, 4, (4, 2))
    fill = _color(rng, 0.6)
    cv2.fillPoly(image, [corners.astype(np.int32)], _tuple(fill), cv2.LINE_AA)
    cv2.polylines(
        image,
        [corners.astype(np.int32)],
        True,
        _tuple(fill * rng.uniform(0.5, 0.95)),
        int(rng.integers(1, 4)),
        cv2.LINE_AA,
    )


def _bar(rng: np.random.Generator, image: Array32) -> None:
    """A straight profile, leg or cable, lit along one edge."""
    height, width = image.shape[:2]
    middle, turn = rng.uniform(0, 1, 2) * [width, height], rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)]) * 2 * width
    thick = int(rng.integers(2, 18))
    color = np.full(3, rng.uniform(60, 220), np.float32) if rng.random() < 0.6 else _color(rng, 0.8)
    for share, brightness in ((1.0, 0.7), (0.7, 1.0), (0.2, 1.25)):
        p, q = (middle - along).astype(int), (middle + along).astype(int)
        line = np.clip(color * brightness, 0, 255)
        cv2.line(
            image,
            (int(p[0]), int(p[1])),
            (int(q[0]), int(q[1])),
            _tuple(line),
            max(int(thick * share), 1),
            cv2.LINE_AA,
        )


def _thing(rng: np.random.Generator, image: Image) -> None:
    """A round or boxy object with a lit and a dark side and a soft shadow under it."""
    height, width = image.shape[:2]
    middle, half = rng.uniform(0, 1, 2) * [width, height], rng.uniform(0.04, 0.24, 2) * width
    reach = int(1.5 * half.max()) + 2
    x0, y0 = np.maximum(middle - reach, 0).astype(int)
    x1, y1 = np.minimum(middle + reach, [width, height]).astype(int)
    turn, towards = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    color, boxy = _color(rng, 0.8), rng.random() < 0.5
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    xs, ys = xs - middle[0], ys - middle[1]
    u = (np.cos(turn) * xs + np.sin(turn) * ys) / half[0]
    v = (np.cos(turn) * ys - np.sin(turn) * xs) / half[1]
    slope = np.cos(towards) * u + np.sin(towards) * v
    if boxy:
        distance = np.maximum(np.abs(u), np.abs(v))
        # two faces meet in an edge
        shade = np.where(u > rng.uniform(-0.6, 0.8), 0.7, 1.0) + 0.12 * slope
    else:
        distance = np.hypot(u, v)
        shade = 0.55 + 0.45 * np.sqrt(np.clip(1 - distance**2, 0, 1)) + 0.3 * slope
    patch = image[y0:y1, x0:x1].astype(np.float32)
    shadow = np.clip(1.5 - np.maximum(distance, 1), 0, 0.5) * rng.uniform(0, 1.1)
    patch *= (1 - shadow)[..., None]
    inside = np.clip((1 - distance) * half.min() + 0.5, 0, 1)
    patch = _mix(patch, np.clip(color * shade[..., None], 0, 255), inside)
    image[y0:y1, x0:x1] = patch.astype(np.uint8)


def _light_falloff(rng: np.random.Generator, image: Image) -> Image:
    height, width = image.shape[:2]
    turn, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.45)
    ys = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, width, dtype=np.float32)[None]
    ramp = 1 + depth * (np.cos(turn) * xs + np.sin(turn) * ys)
    return np.clip(image * ramp[..., None], 0, 255).astype(np.uint8)
