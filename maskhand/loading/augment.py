"""The random augmentation of crops and of the network's 2D pose.

Every sample of a training run has a global index (step x batch + slot). All its random numbers are a pure function of
the seed and this index, so they do not depend on workers, ranks or where a run was resumed. They are drawn as one row
of uniforms per sample; all further computation is vectorized over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from maskhand.arrays import Array
from maskhand.config import AugmentConfig, KeypointConfig
from maskhand.conventions import NUM_JOINTS
from maskhand.loading.detector_errors import DetectorErrors, shipped_errors

ERASE_AREA = (0.02, 0.33)
"""Range of the area of an erased rectangle, as a fraction of the crop (docs/method.md#evidence-augmentation)."""
ERASE_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class ImageAugmentation:
    """The augmentation of B crops."""

    scale: Array
    """(B,) factor on the side of the crop's square."""
    rotation_rad: Array
    """(B,) clockwise rotation of the image."""
    shift: Array
    """(B, 2) shift of the square's center, in its unscaled sides."""
    gain: Array
    """(B, 3) factor on R, G, B."""
    erase_xyxy: Array
    """(B, 4) rectangle in fractions of the crop, 0..1; all zeros: nothing is erased."""
    erase_rgb: Array
    """(B, 3) 0..255, the color of the rectangle."""

    @staticmethod
    def none(batch: int) -> ImageAugmentation:
        """The identity augmentation."""
        one, zero = np.ones, np.zeros
        return ImageAugmentation(
            one(batch), zero(batch), zero((batch, 2)), one((batch, 3)), zero((batch, 4)), zero((batch, 3))
        )


@dataclass(frozen=True)
class KeypointAugmentation:
    """The augmentation of the network's 2D poses for B samples."""

    use_detected: Array
    """(B,) bool: the detected pose is used, not the annotated one."""
    annotated_if_undetected: bool
    """Whether a hand without detection gets its annotated (or simulated) pose; False: it gets no 2D pose."""
    noise: Array
    """(B, 21, 2) added to annotated (and simulated) keypoints, in crop sides."""
    order: Array
    """(B, 21) int64: annotated keypoint k is taken from joint order[k] (two fingers may be swapped)."""
    dropped: Array
    """(B, 21) bool: joints that are set to not detected."""
    errors: DetectorErrors | None = None
    """The errors of B hands that turn annotated poses into simulated detections; None: annotated poses are used."""
    detected_scale: Array | None = None
    """(B,) factors on the errors of the detected poses; None: the poses are not changed."""

    def takes_detected(self, detected_conf: Array) -> Array:
        """(B,) bool: whether the detected pose, with confidences (B, 21), is used."""
        if self.annotated_if_undetected:
            return self.use_detected & detected_conf.any(axis=1)
        return self.use_detected


class Draws:
    """One row of uniform random numbers per sample, consumed column by column."""

    def __init__(self, seed: int, indices: Array, columns: int, stream: int) -> None:
        """`stream` separates independent uses of the same seed and index."""
        raw = np.empty((len(indices), columns), np.uint64)
        generator = np.random.Philox(key=[seed * 16 + stream, 0])
        # Setting the key in the state takes a fifth of the time that creating a generator per sample takes.
        fresh = generator.state
        for row, index in zip(raw, indices, strict=True):
            fresh["state"]["key"][1] = index
            generator.state = fresh
            row[:] = generator.random_raw(columns)
        # 53 random bits, never exactly 0 or 1, so that ndtri stays finite.
        self._uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        self._next = 0

    def uniform(self, low: float = 0.0, high: float = 1.0, columns: int = 1) -> Array:
        """(B, columns) in low..high."""
        taken = self._uniform[:, self._next : self._next + columns]
        self._next += columns
        if taken.shape[1] != columns:
            raise ValueError(f"only {self._uniform.shape[1]} numbers per sample were drawn")
        return low + (high - low) * taken

    def normal(self, clip: float = np.inf, columns: int = 1) -> Array:
        """(B, columns) standard normal numbers, clipped."""
        return np.clip(ndtri(self.uniform(columns=columns)), -clip, clip)


IMAGE_STREAM, KEYPOINT_STREAM, POSE_STREAM, PHOTO_STREAM, POSED_STREAM = range(5)


def draw_image_augmentation(config: AugmentConfig, seed: int, indices: Array) -> ImageAugmentation:
    """HaMeR's `do_augmentation` with the recipe's values, plus random erasing, for samples with global `indices`."""
    draws = Draws(seed, indices, 16, IMAGE_STREAM)
    scale = 1 + config.scale * draws.normal(clip=1)[:, 0]
    rotated = draws.uniform()[:, 0] < config.rotation_probability
    rotation = np.deg2rad(config.rotation_deg) * draws.normal(clip=2)[:, 0] * rotated
    shift = config.translation * draws.normal(clip=1, columns=2)
    gain = draws.uniform(1 - config.color_gain, 1 + config.color_gain, columns=3)
    erased = draws.uniform() < config.erase_probability
    area = draws.uniform(*ERASE_AREA)
    aspect = np.exp(draws.uniform(*np.log(ERASE_ASPECT)))
    size = np.minimum(np.concatenate([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=1), 1.0)
    corner = draws.uniform(columns=2) * (1 - size)
    rectangle = np.concatenate([corner, corner + size], axis=1) * erased
    return ImageAugmentation(scale, rotation, shift, gain, rectangle, draws.uniform(0, 255, columns=3))


def draw_keypoint_augmentation(config: KeypointConfig, seed: int, indices: Array) -> KeypointAugmentation:
    """The recipe's noise, swapped fingers and dropped joints, for the samples with global `indices`.

    With `train_source: detected` an undetected hand has no 2D pose, as in evaluation. The factors on errors are drawn
    last, so that the other draws do not depend on them.
    """
    simulated = config.simulates_detections
    draws = Draws(seed, indices, 8 + 3 * NUM_JOINTS, KEYPOINT_STREAM)
    detected_fraction = {"detected": 1.0, "mixed": 0.5, "detected_simulated": 0.5}.get(config.train_source, 0.0)
    use_detected = draws.uniform()[:, 0] < detected_fraction
    dropped = draws.uniform() < config.drop_pose
    swapped = draws.uniform()[:, 0] < config.swap_fingers
    order = _swap_two_fingers(swapped, draws.uniform()[:, 0], draws.uniform()[:, 0])
    noise = config.noise * draws.normal(columns=2 * NUM_JOINTS).reshape(-1, NUM_JOINTS, 2)
    dropped = dropped | (draws.uniform(columns=NUM_JOINTS) < config.drop_joint)
    errors = None
    if simulated:
        errors = shipped_errors().drawn(draws.uniform()[:, 0], draws.uniform(*config.error_scale)[:, 0])
    detected_scale = None
    if config.trains_on_detections and config.detected_scale != (1.0, 1.0):
        detected_scale = draws.uniform(*config.detected_scale)[:, 0]
    given_anyway = config.train_source in ("mixed", "detected_simulated")
    return KeypointAugmentation(use_detected, given_anyway, noise, order, dropped, errors, detected_scale)


def _swap_two_fingers(swapped: Array, first: Array, second: Array) -> Array:
    """(B,) flags and uniforms -> (B, 21) joint orders in which two different fingers are swapped."""
    a = (first * 5).astype(np.int64)
    b = (a + 1 + (second * 4).astype(np.int64)) % 5
    fingers = np.tile(np.arange(5), (len(swapped), 1))
    rows = np.flatnonzero(swapped)
    fingers[rows, a[rows]], fingers[rows, b[rows]] = b[rows], a[rows]
    order = np.zeros((len(swapped), NUM_JOINTS), np.int64)
    order[:, 1:] = (1 + 4 * fingers[:, :, None] + np.arange(4)).reshape(-1, NUM_JOINTS - 1)
    return order


def erase(crops: Array, augmentation: ImageAugmentation) -> None:
    """Fill the erased rectangles of crops (B, S, W, 4) uint8 in place; alpha is unchanged."""
    side, width = crops.shape[1:3]
    corners = np.round(augmentation.erase_xyxy * side).astype(int)
    corners[:, ::2] = np.clip(corners[:, ::2] - (side - width) // 2, 0, width)
    for row in np.flatnonzero(augmentation.erase_xyxy.any(axis=1)):
        x0, y0, x1, y1 = corners[row]
        crops[row, y0:y1, x0:x1, :3] = augmentation.erase_rgb[row].astype(np.uint8)
