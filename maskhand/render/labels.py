"""Labels placed in an image so that they stay inside of it and do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from maskhand.arrays import Array
from maskhand.render.fonts import PAPER, text_font

_DARK = (20, 20, 20)
_STEPS = 48
"""Places that are tried along each side of the image."""


@dataclass(frozen=True)
class PlacedLabel:
    """A text and its box x0, y0, x1, y1 in pixels of the image."""

    text: str
    box_xyxy_px: tuple[float, float, float, float]
    pointed: bool
    """Whether it stands away from what it is of, so that a line leads there."""


def label_text_px(size_px: tuple[int, int]) -> int:
    """The height of text in an image of this height and width."""
    return max(11, max(size_px) // 48)


def place_labels(
    texts: Sequence[Sequence[str]], boxes_xyxy_px: Array, size_px: tuple[int, int], text_px: int
) -> list[PlacedLabel]:
    """A place for the label of each of N boxes (N, 4) in an image of this height and width.

    texts: for each box what it may say, the longest first: where that finds no free place at the box, a shorter one is
    taken. A label covers as little as may be of all boxes, and no other label, unless the image is too full of them
    even for the shortest texts.
    """
    boxes = np.asarray(boxes_xyxy_px, np.float64).reshape(-1, 4)
    placed: dict[int, PlacedLabel] = {}
    taken = np.empty((0, 4))
    for k in np.argsort(boxes[:, 1], kind="stable").tolist():
        found = [_best_place(text, boxes, k, taken, size_px, text_px) for text in texts[k]]
        placed[k] = min(found, key=lambda one: one[0])[1]  # the first of equal ones
        taken = np.vstack([taken, placed[k].box_xyxy_px])
    return [placed[k] for k in range(len(boxes))]


def _best_place(
    text: str, boxes: Array, number: int, taken: Array, size_px: tuple[int, int], text_px: int
) -> tuple[tuple[bool, bool, bool], PlacedLabel]:
    """The best place for a text about a box, and what is wrong with it: it covers labels or is cut, it covers boxes, it
    stands away from its own."""
    height, width = size_px
    box, size = boxes[number], np.array(_size_px(text, text_px))
    corners = _candidates(box, size, np.array([width, height]))
    places = np.hstack([corners, corners + size])
    labels, hands = (_overlap(places, others).sum(1) / size.prod() for others in (taken, boxes))
    away = _away(places, box) / text_px
    above = np.array([(box[0] + box[2] - size[0]) / 2, box[1] - size[1]])
    cost = 1e6 * labels + 10 * hands + away + 0.02 * np.linalg.norm(corners - above, axis=1) / text_px
    best = int(cost.argmin())
    pointed = bool(away[best] > 1.5)
    wrong = (bool(labels[best] > 0 or size[0] > width), bool(hands[best] > 0.02), pointed)
    return wrong, PlacedLabel(text, tuple(places[best].tolist()), pointed)


def draw_labels(image_rgb: Array, labels: Sequence[PlacedLabel], boxes_xyxy_px: Array, text_px: int) -> Array:
    """Draw placed labels on a copy of the image: light on dark, so that they can be read on any image."""
    image = Image.fromarray(image_rgb)
    plates = Image.new("RGBA", image.size)
    draw, font, pad = ImageDraw.Draw(plates), text_font(text_px), _pad(text_px)
    for label, box in zip(labels, np.asarray(boxes_xyxy_px, np.float64).tolist(), strict=True):
        x0, y0, x1, y1 = label.box_xyxy_px
        if label.pointed:
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            nearest = (min(max(middle[0], box[0]), box[2]), min(max(middle[1], box[1]), box[3]))
            for color, wide in ((_DARK, 3), (PAPER, 1)):
                draw.line([middle, nearest], fill=(*color, 220), width=wide * max(1, text_px // 12))
    for label in labels:
        x0, y0, x1, y1 = label.box_xyxy_px
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=pad, fill=(*_DARK, 190))
        left, top, _, _ = draw.textbbox((0, 0), label.text, font=font)
        draw.text((x0 + pad - left, y0 + pad - top), label.text, fill=(*PAPER, 255), font=font)
    image.paste(plates, mask=plates)
    return np.asarray(image)


def _pad(text_px: int) -> int:
    return max(2, text_px // 5)


def _size_px(text: str, text_px: int) -> tuple[int, int]:
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox((0, 0), text, font=text_font(text_px))
    return int(np.ceil(right - left)) + 2 * _pad(text_px), int(np.ceil(bottom - top)) + 2 * _pad(text_px)


def _candidates(box: Array, size: Array, image: Array) -> Array:
    """(M, 2) corners of a label: around the box, then everywhere; it is inside the image there, if it fits at all."""
    room = np.maximum(image - size, 0)
    low, high = box[:2], box[2:]
    around = np.stack([low, high - size, (low + high - size) / 2, low - size, high])
    tried = np.vstack([around, np.linspace(0, 1, _STEPS)[:, None] * room])
    x, y = np.meshgrid(*tried.T, indexing="ij")
    return np.clip(np.rint(np.stack([x.ravel(), y.ravel()], axis=1)), 0, room)


def _overlap(a: Array, b: Array) -> Array:
    """(M, N) areas that boxes (M, 4) and (N, 4) have in common."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def _away(places: Array, box: Array) -> Array:
    """(M,) distances of boxes (M, 4) from a box (4,), 0 where they touch."""
    gap = np.maximum(np.maximum(places[:, :2] - box[2:], box[:2] - places[:, 2:]), 0)
    return np.hypot(gap[:, 0], gap[:, 1])
