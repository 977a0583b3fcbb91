"""Images inside their own addresses (data URLs), for pages that need no other file."""

from __future__ import annotations

from base64 import b64encode
from typing import Literal

import cv2
import numpy as np

from maskhand.arrays import Array

_JPEG_QUALITY = 85


def data_url(encoded: bytes, kind: Literal["jpeg", "png"]) -> str:
    """The address of an encoded image."""
    return f"data:image/{kind};base64,{b64encode(encoded).decode()}"


def jpeg_url(image_rgb: Array) -> str:
    """The address of an image (H, W, 3) uint8, as a JPEG."""
    bgr = np.ascontiguousarray(image_rgb[:, :, ::-1])
    return data_url(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes(), "jpeg")
