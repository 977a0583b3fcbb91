"""The square crop around a hand: which square, its affine, and cutting it out of an encoded picture quickly.

HaMeR's crop: the box grows to the network's 3:4 aspect, its longer side times `box_scale` is the side of a square; the
square is warped bilinearly onto `crop_px` pixels with a black border, smoothed first where it shrinks by more than 1.1.
All affines are (2, 3) and act on pixel coordinates whose origin is the centre of the top-left pixel; the centre of the
box lands on `crop_px / 2`, which is 0 in crop coordinates (`batch`).
"""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import simplejpeg

Array = np.ndarray

NETWORK_ASPECT = 3 / 4
"""Width over height of what the network sees of the crop."""
SMOOTH_ABOVE = 1.1
JPEG = b"\xff\xd8"


def crop_side_px(box_xyxy_px: Array, box_scale: float) -> Array:
    """(..., 4) boxes -> (...) sides of the square crops: the longer side at aspect 3:4, times `box_scale`."""
    box = np.asarray(box_xyxy_px, np.float64)
    size = box[..., 2:] - box[..., :2]
    return box_scale * np.maximum(size[..., 1], size[..., 0] / NETWORK_ASPECT)


def box_center_px(box_xyxy_px: Array) -> Array:
    """(..., 4) -> (..., 2)."""
    box = np.asarray(box_xyxy_px, np.float64)
    return (box[..., :2] + box[..., 2:]) / 2


def crop_affine(center_px: Array, side_px: Array, rotation_rad: Array, crop_px: int) -> Array:
    """(N, 2) centres, (N,) sides and (N,) rotations -> (N, 2, 3) affines from picture to crop pixels.

    A positive rotation turns the picture's x axis towards its y axis: clockwise as seen.
    """
    c, s = np.cos(rotation_rad), np.sin(rotation_rad)
    scale = crop_px / np.asarray(side_px, np.float64)
    linear = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2) * scale[:, None, None]
    offset = crop_px / 2 - (linear @ np.asarray(center_px, np.float64)[:, :, None])
    return np.concatenate([linear, offset], axis=2)


def mirror_affine(width_px: Array) -> Array:
    """(N,) picture widths -> (N, 2, 3): x becomes width - 1 - x."""
    affine = np.zeros((len(width_px), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1], affine[:, 0, 2] = -1, 1, np.asarray(width_px) - 1
    return affine


def compose(after: Array, before: Array) -> Array:
    """(N, 2, 3) and (N, 2, 3) -> (N, 2, 3): first `before`, then `after`."""
    linear = after[:, :, :2] @ before[:, :, :2]
    offset = after[:, :, :2] @ before[:, :, 2:] + after[:, :, 2:]
    return np.concatenate([linear, offset], axis=2)


def apply_affine(affine: Array, points: Array) -> Array:
    """(N, 2, 3) and (N, K, 2) -> (N, K, 2)."""
    return points @ affine[:, :, :2].transpose(0, 2, 1) + affine[:, None, :, 2]


def crop_encoded(encoded: bytes, crop_from_image: Array, crop_px: int, width_px: int | None = None) -> Array:
    """Cut a crop out of an encoded picture: (crop_px, width_px, 4) uint8, RGB and a channel without meaning.

    OpenCV warps four channels in less than half of the time that it takes for three. width_px: of a crop that is no
    square. A JPEG that shrinks by two or more is decoded at 1/2, 1/4 or 1/8 size, which costs a fraction of the full
    picture. Raises ValueError when the picture cannot be decoded.
    """
    shrink = _shrink(crop_from_image)
    reduction = next((r for r in (8, 4, 2) if shrink >= r), 1) if encoded.startswith(JPEG) else 1
    if reduction > 1:
        crop_from_image = _from_reduced(crop_from_image, reduction)
    return cut_crop(_decode(encoded, reduction), crop_from_image, crop_px, width_px)


def cut_crop(image: Array, crop_from_image: Array, crop_px: int, width_px: int | None = None) -> Array:
    """Cut a crop out of a decoded picture (H, W, C) uint8: (crop_px, width_px, C), channels as in the picture."""
    size = (crop_px if width_px is None else width_px, crop_px)
    shrink = _shrink(crop_from_image)
    if shrink > SMOOTH_ABOVE:
        image, crop_from_image = _smooth_region(image, crop_from_image, size, shrink)
    return cv2.warpAffine(image, crop_from_image, size, flags=cv2.INTER_LINEAR)


def can_decode(encoded: bytes) -> bool:
    """Is this a picture? Decoded at an eighth of its size where its format allows, which costs little."""
    return bool(encoded) and cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is not None


def _shrink(crop_from_image: Array) -> float:
    (a, b), (c, d) = crop_from_image[:, :2].tolist()
    return abs(a * d - b * c) ** -0.5


def _decode(encoded: bytes, reduction: int) -> Array:
    """(H, W, 4) uint8 RGB and one more channel, in stored orientation; a JPEG at one `reduction`-th of its size."""
    if encoded.startswith(JPEG):
        # libjpeg-turbo itself: faster than through OpenCV, and it writes four channels.
        with contextlib.suppress(ValueError):
            height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
            least = {"min_height": -(-height // reduction), "min_width": -(-width // reduction)}
            return simplejpeg.decode_jpeg(encoded, "RGBX", fastdct=True, strict=False, **least)
    # PNG, and kinds of JPEG that the simple interface does not know (CMYK, odd subsampling).
    mode = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    # Annotations refer to the stored pixels, whatever an EXIF tag says about showing them.
    flags = mode.get(reduction, cv2.IMREAD_REDUCED_COLOR_8) | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if image is None:
        raise ValueError("the picture cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)


def _from_reduced(crop_from_image: Array, reduction: int) -> Array:
    """The same crop out of the picture reduced by an integer: x = (x' + 1/2) r - 1/2."""
    shift = np.full(2, (reduction - 1) / 2)
    linear = crop_from_image[:, :2]
    return np.concatenate([linear * reduction, (linear @ shift + crop_from_image[:, 2])[:, None]], axis=1)


def _smooth_region(image: Array, crop_from_image: Array, size: tuple[int, int], shrink: float) -> tuple[Array, Array]:
    """Blur only the part of the picture that the crop covers; returns it with the affine that fits it."""
    # A Gaussian of this width makes a source pixel's footprint as wide as a crop pixel's.
    sigma = 0.5 * (shrink**2 - 1) ** 0.5
    margin = int(np.ceil(3 * sigma)) + 1
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float64)
    image_from_crop = cv2.invertAffineTransform(crop_from_image)
    covered = corners @ image_from_crop[:, :2].T + image_from_crop[:, 2]
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(covered.min(0)).astype(int) - margin, 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(covered.max(0)).astype(int) + margin, (x0 + 1, y0 + 1), (width, height))
    region = cv2.GaussianBlur(image[y0:y1, x0:x1], (0, 0), sigma)
    linear = crop_from_image[:, :2]
    return region, np.concatenate([linear, (linear @ (x0, y0) + crop_from_image[:, 2])[:, None]], axis=1)
