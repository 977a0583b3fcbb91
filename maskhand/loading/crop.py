"""The square crop around a hand: its size, and a fast way to cut it out of an encoded image.

HaMeR's crop: the box is extended to the network's aspect ratio, and its longer side times `box_scale` is the side of a
square, which is warped bilinearly to `crop_px` pixels with a black border, after a blur if it shrinks by more than 1.1.
Its affine, (2, 3) from image to crop pixels, is `geometry2d.crop_affine`: the center of the box is mapped to
`crop_px / 2`.
"""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import simplejpeg

from maskhand.arrays import Array

SMOOTH_ABOVE = 1.1
JPEG = b"\xff\xd8"


def crop_side_px(box_xyxy_px: Array, box_scale: float, aspect: float) -> Array:
    """(..., 4) boxes -> (...) sides of the square crops: the longer side at the network's aspect, times `box_scale`."""
    box = np.asarray(box_xyxy_px, np.float64)
    size = box[..., 2:] - box[..., :2]
    return box_scale * np.maximum(size[..., 1], size[..., 0] / aspect)


def crop_encoded(encoded: bytes, crop_from_image: Array, crop_px: int) -> Array:
    """A square crop of an encoded image: (crop_px, crop_px, 4) uint8 as in `HandBatch.pixels`.

    Raises ValueError when the image cannot be decoded.
    """
    shrink = float(shrink_factor(crop_from_image))
    image, crop_from_image, _ = decode_for_crop(encoded, crop_from_image, shrink, Scratch())
    return cut_crop(image, crop_from_image, crop_px)


def cut_crop(image: Array, crop_from_image: Array, crop_px: int) -> Array:
    """A square crop of a decoded image (H, W, C) uint8: (crop_px, crop_px, C), channels as in the image."""
    crop = np.empty((crop_px, crop_px, image.shape[2]), np.uint8)
    cut_into(crop, image, crop_from_image, float(shrink_factor(crop_from_image)))
    return crop


class Scratch:
    """A buffer for decoded images that is reused, so that it stays in the processor's cache."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def buffer(self, size: int) -> Array:
        """(at least `size`,) uint8, reused when it is large enough."""
        if len(self._memory) < size:
            self._memory = np.empty(size, np.uint8)
        return self._memory


def decode_for_crop(
    encoded: bytes, crop_from_image: Array, shrink: float, scratch: Scratch
) -> tuple[Array, Array, float]:
    """A decoded image (H, W, 4) uint8 RGBA, the (2, 3) affine from it to the crop, and the affine's shrink factor.

    A JPEG that shrinks by two or more is decoded at 1/2, 1/4 or 1/8 size, which costs a fraction of the full image.
    The next image decoded into `scratch` may overwrite this one. Raises ValueError when the image cannot be
    decoded.
    """
    reduction = 1
    if shrink >= 2 and encoded.startswith(JPEG):
        reduction = next(r for r in (8, 4, 2) if shrink >= r)
        crop_from_image = _from_reduced(crop_from_image, reduction)
    return _decode(encoded, reduction, scratch), crop_from_image, shrink / reduction


def cut_into(crop: Array, image: Array, crop_from_image: Array, shrink: float) -> None:
    """Fill `crop` (h, w, C) uint8, C-contiguous, from an image (H, W, C) uint8; zeros outside of the image.

    shrink: `shrink_factor` of the affine.
    """
    size = (crop.shape[1], crop.shape[0])
    if shrink > SMOOTH_ABOVE:
        image, crop_from_image = _smooth_region(image, crop_from_image, size, shrink)
    # OpenCV warps four channels in less than half of the time it takes for three.
    cv2.warpAffine(image, crop_from_image, size, dst=crop, flags=cv2.INTER_LINEAR)


def can_decode(encoded: bytes) -> bool:
    """Whether this is a decodable image; it is decoded at an eighth of its size if its format allows."""
    with contextlib.suppress(ValueError):
        return _decode(encoded, 8, Scratch()).size > 0
    return False


def shrink_factor(crop_from_image: Array) -> Array:
    """(..., 2, 3) -> (...) pixels of the image per pixel of the crop."""
    (a, b), (c, d) = np.moveaxis(crop_from_image[..., :2], (-2, -1), (0, 1))
    return np.abs(a * d - b * c) ** -0.5


def _decode(encoded: bytes, reduction: int, scratch: Scratch) -> Array:
    """(H, W, 4) uint8 RGBA, A = 255, in stored orientation; a JPEG at one `reduction`-th of its size."""
    if encoded.startswith(JPEG):
        # libjpeg-turbo directly: faster than through OpenCV, and it writes four channels.
        with contextlib.suppress(ValueError):
            height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
            return simplejpeg.decode_jpeg(
                encoded,
                "RGBA",
                # Chroma without interpolation: a mean error of 0.5 levels, in 0.9 of the time.
                fastupsample=True,
                strict=False,
                min_height=-(-height // reduction),
                min_width=-(-width // reduction),
                buffer=scratch.buffer(4 * height * width),
            )
    # PNG, and JPEGs that the simple interface does not support (CMYK, unusual subsampling).
    mode = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    # Annotations refer to the stored pixels, whatever the EXIF orientation.
    flags = mode.get(reduction, cv2.IMREAD_REDUCED_COLOR_8) | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if encoded else None
    if image is None:
        raise ValueError("the image cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)


def _from_reduced(crop_from_image: Array, reduction: int) -> Array:
    """The affine from the image reduced by an integer to the same crop: x = (x' + 1/2) r - 1/2."""
    shift = np.full(2, (reduction - 1) / 2)
    linear = crop_from_image[:, :2]
    return np.concatenate([linear * reduction, (linear @ shift + crop_from_image[:, 2])[:, None]], axis=1)


def _smooth_region(image: Array, crop_from_image: Array, size: tuple[int, int], shrink: float) -> tuple[Array, Array]:
    """Blur only the part of the image that the crop covers; returns this part and the affine from it to the crop."""
    # A Gaussian of this width makes a source pixel's footprint as wide as a crop pixel.
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
