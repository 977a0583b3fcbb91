"""The font of texts in images, and the background color."""

from __future__ import annotations

import functools

from PIL import ImageFont

PAPER = (250, 250, 248)


@functools.cache
def text_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
