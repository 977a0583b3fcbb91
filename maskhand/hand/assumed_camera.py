"""The camera of an image of which nothing is known, and HaMeR's focal length; without torch."""

from __future__ import annotations

from typing import Final

import numpy as np

FOCAL: Final = 5000 / 256
"""Focal length of the crop camera in crop sides."""


def assumed_camera(size_px: tuple[int, int], focal_px: float | None = None) -> np.ndarray:
    """(3, 3) float64 K, pixels, of an image (width, height) whose camera is unknown; the center is the image's.

    Without a focal length HaMeR's: the crop camera's, on the image's longer side.
    """
    width, height = size_px
    focal = FOCAL * max(width, height) if focal_px is None else focal_px
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float64)
