"""Decoding of a sample's image for annotators."""

from __future__ import annotations

import cv2
import numpy as np

from maskhand.sample import HandSample, SampleError


def decode_rgb(sample: HandSample) -> np.ndarray:
    """(H, W, 3) uint8 RGB in stored orientation, the one that annotations refer to.

    Raises SampleError (`bad_image`) when the image cannot be decoded.
    """
    image = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise SampleError("bad_image", f"{sample.key}: the {sample.image_format} file cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
