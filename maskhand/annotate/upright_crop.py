"""Square crops of an image, rotated so that the hand is upright, as the landmark and palm models expect.

Angles are the hand's rotation from fingers-up, radians, clockwise in the image.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import UPRIGHT
from maskhand.geometry2d import crop_affine, tight_box


def upright_angle(keypoints_px: Array) -> float:
    """The angle of a hand with keypoints (21, 2), from its wrist and middle knuckle."""
    wrist, middle_mcp = UPRIGHT
    x, y = keypoints_px[middle_mcp] - keypoints_px[wrist]
    return math.atan2(y, x) + math.pi / 2


def upright_extent(points_px: Array, angle_rad: float) -> tuple[Array, float]:
    """Center (2,) in the image and longer side of the box around points (N, 2), with axes rotated by the angle."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    upright_from_image = np.array([[c, s], [-s, c]])
    box = tight_box(points_px @ upright_from_image.T)
    return upright_from_image.T @ ((box[:2] + box[2:]) / 2), float((box[2:] - box[:2]).max())


def square_affine(center_px: Array, side_px: float, angle_rad: float, out_px: int) -> Array:
    """(2, 3) affine from the image to a crop of `out_px`: the square around `center_px`, rotated by the angle."""
    center, side, rotation = np.asarray(center_px)[None], np.array([side_px]), np.array([-angle_rad])
    return crop_affine(center, side, rotation, out_px, center_at=(out_px - 1) / 2)[0]


def square_crop(image: Array, center_px: Array, side_px: float, angle_rad: float, out_px: int) -> Array:
    """(out_px, out_px, 3) crop of this square, black outside the image; first shrunk by area averaging if large."""
    crop_from_image = square_affine(center_px, side_px, angle_rad, out_px)
    shrink = min(1.0, 2 * out_px / side_px)
    if shrink < 1:
        # Only the part that the rotated square covers, with a margin for the interpolation.
        reach = side_px / 2 * (abs(math.cos(angle_rad)) + abs(math.sin(angle_rad))) + 2 / shrink
        size = np.array([image.shape[1], image.shape[0]])
        low = np.floor(center_px - reach).astype(int).clip(0, size - 1)
        low = np.array([_on_grid(edge, shrink) for edge in low.tolist()])
        high = np.ceil(center_px + reach).astype(int).clip(low + 1, size)
        crop_from_image[:, 2] += crop_from_image[:, :2] @ low
        part = image[low[1] : high[1], low[0] : high[0]]
        image = shrunk(part, shrink)
        crop_from_image = _after_resize(crop_from_image, shrink)
    return cv2.warpAffine(image, crop_from_image, (out_px, out_px))


def shrunk(image: Array, factor: float) -> Array:
    """An image shrunk by area averaging; at least one pixel wide and high."""
    if round(factor * min(image.shape[:2])) >= 1:
        return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = (max(1, round(factor * length)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _on_grid(edge: int, shrink: float) -> int:
    """A pixel at most 64 px before `edge` that is mapped to nearly a whole pixel by the shrinking, so that shrinking
    the part gives the same pixels as shrinking the whole image."""
    before = np.arange(max(edge - 64, 0), edge + 1)
    return int(before[np.argmin(np.abs(before * shrink - np.rint(before * shrink)))])


def _after_resize(crop_from_image: Array, factor: float) -> Array:
    """The same crop taken from the image resized by `factor` (cv2's pixel centers: x' = (x + 1/2) f - 1/2)."""
    image_from_small = np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5], [0, 0, 1]])
    return crop_from_image @ image_from_small
