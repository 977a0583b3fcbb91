"""What texts in images share: the font that Pillow brings along, and the color of paper."""

from __future__ import annotations

import functools

from PIL import ImageFont

PAPER = (250, 250, 248)


@functools.cache
def text_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)
