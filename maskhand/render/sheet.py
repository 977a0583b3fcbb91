"""Contact sheets, bar charts, and PNG encoding."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from maskhand.arrays import Array
from maskhand.render.fonts import PAPER, text_font

_INK, _MUTED = (32, 36, 42), (105, 112, 122)


def contact_sheet(
    rows: Sequence[Sequence[Array]],
    captions: Sequence[Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    title: str = "",
    tile_px: int = 224,
    footer: Array | None = None,
) -> bytes:
    """A grid of images as one PNG: each fits a square tile with a caption below, headings are above the columns.

    footer: (h, w, 3) below the grid, e.g. a legend.
    """
    if not rows or not any(len(row) for row in rows):
        raise ValueError("contact_sheet: no images given")
    text_px, gap = max(11, tile_px // 16), max(6, tile_px // 24)
    lines = max((caption.count("\n") + 1 for row in captions or () for caption in row if caption), default=0)
    caption_px = lines * (text_px + 4)
    top = gap + (text_px * 2 if title else 0) + (text_px + gap if columns else 0)
    across = max(len(row) for row in rows)
    size = (across * (tile_px + gap) + gap, top + len(rows) * (tile_px + caption_px + gap) + gap)
    grid_px = size[1]
    if footer is not None:
        size = (max(size[0], footer.shape[1]), grid_px + footer.shape[0])
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), title, fill=_INK, font=text_font(round(text_px * 1.3)))
    for c, heading in enumerate(columns):
        draw.text((gap + c * (tile_px + gap), top - text_px - gap // 2), heading, fill=_MUTED, font=text_font(text_px))
    for r, row in enumerate(rows):
        y = top + r * (tile_px + caption_px + gap)
        for c, image in enumerate(row):
            x = gap + c * (tile_px + gap)
            sheet.paste(_fit(image, tile_px), (x, y))
            if captions and c < len(captions[r]):
                draw.multiline_text((x, y + tile_px + 2), captions[r][c], fill=_INK, font=text_font(text_px), spacing=2)
    if footer is not None:
        sheet.paste(Image.fromarray(footer), (0, grid_px))
    return png_bytes(np.asarray(sheet))


def bar_tile(values: Array, labels: Sequence[str], colors: Sequence[tuple[int, int, int]], tile_px: int = 224) -> Array:
    """A bar chart (tile_px, tile_px, 3): one labeled horizontal bar per value in 0..1."""
    tile = Image.new("RGB", (tile_px, tile_px), (255, 255, 255))
    draw = ImageDraw.Draw(tile)
    row = tile_px / len(values)
    font = text_font(max(8, min(round(row * 0.75), tile_px // 16)))
    left, right = tile_px * 0.36, tile_px * 0.97
    for k, (value, label, color) in enumerate(zip(values, labels, colors, strict=True)):
        fraction = float(np.clip(np.nan_to_num(value), 0, 1))
        y = k * row
        draw.text((tile_px * 0.03, y + row / 2), label, fill=_INK, font=font, anchor="lm")
        draw.rectangle((left, y + row * 0.2, right, y + row * 0.8), fill=(236, 238, 240))
        if fraction > 0:
            draw.rectangle((left, y + row * 0.2, left + fraction * (right - left), y + row * 0.8), fill=color)
    return np.asarray(tile)


def framed(rows: Sequence[Sequence[Array]]) -> Array:
    """Images as they are, those of a row side by side and rows one above the other, with gaps between them."""
    gap = max(6, max(image.shape[1] for row in rows for image in row) // 80)
    across = max(sum(image.shape[1] for image in row) + gap * (len(row) - 1) for row in rows)
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + gap * (len(rows) - 1), across, 3), PAPER, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for image in row:
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
            left += image.shape[1] + gap
        top += height + gap
    return sheet


def png_bytes(image_rgb: Array) -> bytes:
    """Encode an image as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image_rgb).save(stream, format="PNG")
    return stream.getvalue()


def _fit(image: Array, side_px: int) -> Image.Image:
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = Image.new("RGB", (side_px, side_px), PAPER)
    tile.paste(Image.fromarray(resized), ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
    return tile
