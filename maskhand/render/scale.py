"""The color scale of errors in millimeters, and its legend.

Viridis (matplotlib, CC0; van der Walt and Smith 2015): equal steps in value are equal steps in perceived lightness,
for people with any kind of color vision and in gray.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from maskhand.arrays import Array
from maskhand.render.fonts import PAPER, text_font

ERROR_MM = 20.0
"""The end of the scale; larger values have its last color. One scale for all pictures, so that they compare."""
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 74, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (109, 205, 89),
        (180, 222, 44),
        (253, 231, 37),
    ],
    np.float64,
)
UNKNOWN_RGB = (150, 150, 150)
"""Of an error that is not known."""
_INK = (32, 36, 42)


def error_rgb(error_mm: Array, end_mm: float = ERROR_MM) -> Array:
    """(..., 3) uint8 colors of errors (...) in millimeters, from 0 (dark) to `end_mm` (bright); gray where NaN."""
    error = np.asarray(error_mm, np.float64)
    place = np.clip(np.nan_to_num(error) / end_mm, 0, 1) * (len(_VIRIDIS) - 1)
    colors = np.stack([np.interp(place, np.arange(len(_VIRIDIS)), channel) for channel in _VIRIDIS.T], axis=-1)
    return np.rint(np.where(np.isnan(error)[..., None], UNKNOWN_RGB, colors)).astype(np.uint8)


def legend(title: str, text_px: int, end_mm: float = ERROR_MM) -> Array:
    """A tile (h, w, 3): the scale from 0 to `end_mm` with its numbers, and what it is of."""
    font, gap, bar_px = text_font(text_px), text_px // 2, 10 * text_px
    last = f"{end_mm:g} mm or more"
    width = gap + bar_px + max(font.getlength(title) - bar_px, font.getlength(last)) + gap
    tile = Image.new("RGB", (round(width), 3 * (text_px + gap)), PAPER)
    draw = ImageDraw.Draw(tile)
    draw.text((gap, 0), title, fill=_INK, font=font)
    top = text_px + gap
    scale = error_rgb(np.linspace(0, end_mm, bar_px), end_mm)
    tile.paste(Image.fromarray(scale[None].repeat(text_px, 0)), (gap, top))
    for value, text, anchor in ((0.0, "0", "la"), (end_mm / 2, f"{end_mm / 2:g}", "ma"), (end_mm, last, "la")):
        draw.text((gap + value / end_mm * bar_px, top + text_px + gap // 2), text, fill=_INK, font=font, anchor=anchor)
    return np.asarray(tile)
