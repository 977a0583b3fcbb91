"""Palm detection: the open palm detection network (Apache-2.0, 2 MB), an SSD on squares of 192 px."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskhand.annotate.upright_crop import shrunk, square_affine
from maskhand.arrays import Array
from maskhand.geometry2d import box_iou

PALM_INPUT_PX = 192
GRIDS = ((24, 2), (12, 6))
"""(cells per side, anchors per cell) of the model's two feature maps: 24*24*2 + 12*12*6 = 2016 anchors."""
PALM_KEYPOINTS = 7
PALM_WRIST, PALM_MIDDLE = 0, 2
PALM_SCORE = 0.5
SAME_PALM = 0.6
"""Intersection over union above which two detections are one."""


@dataclass(frozen=True)
class Palm:
    """A detected palm, in pixels of the image."""

    box_xyxy_px: Array
    angle_rad: float
    """Rotation of the hand, clockwise from fingers-up."""
    score: float


class PalmNet:
    """The palm detection model."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(str(model), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in self._net.get_output_details()}
        self._boxes, self._scores = outputs["Identity"], outputs["Identity_1"]
        self._anchors = anchors()

    def in_square(self, image: Array, center_px: Array, side_px: float) -> list[Palm]:
        """Palms in a square region; parts of it outside the image are black."""
        region_from_image = square_affine(center_px, side_px, 0.0, PALM_INPUT_PX)
        region = cv2.warpAffine(image, region_from_image, (PALM_INPUT_PX, PALM_INPUT_PX))
        self._net.set_tensor(self._input, region[None].astype(np.float32) / np.float32(255))
        self._net.invoke()
        logits = self._net.get_tensor(self._scores)[0, :, 0].clip(-100, 100).astype(np.float64)
        scores = 1 / (1 + np.exp(-logits))
        confident = scores > PALM_SCORE
        values = self._net.get_tensor(self._boxes)[0, confident].reshape(-1, 2 + PALM_KEYPOINTS, 2) / PALM_INPUT_PX
        origin = np.asarray(center_px) - side_px / 2
        points = (values[:, 2:] + self._anchors[confident, None]) * side_px + origin
        centers = (values[:, 0] + self._anchors[confident]) * side_px + origin
        halves = values[:, 1] * side_px / 2
        found = []
        for center, half, keypoints, score in zip(centers, halves, points, scores[confident], strict=True):
            x, y = keypoints[PALM_MIDDLE] - keypoints[PALM_WRIST]
            angle = math.atan2(y, x) + math.pi / 2
            found.append(Palm(np.concatenate([center - half, center + half]), angle, float(score)))
        return found

    def in_tiles(
        self, image: Array, side_px: float, overlap: float = 0.5, min_contrast: float | None = None
    ) -> list[Palm]:
        """Palms in square tiles, with neighbors overlapping by the fraction `overlap`.

        min_contrast: tiles with a standard deviation of pixel values up to this are skipped (wall, sky).
        """
        height, width = image.shape[:2]
        # Shrinking once per scale with area averaging avoids aliasing of small palms.
        factor = min(1.0, PALM_INPUT_PX / side_px)
        small = shrunk(image, factor)
        found: list[Palm] = []
        for center in _tile_centers(width, height, side_px, overlap):
            if min_contrast is None or _contrast(small, center * factor, side_px * factor) > min_contrast:
                found += [_enlarged(p, factor) for p in self.in_square(small, center * factor, side_px * factor)]
        return found


def distinct_palms(palms: Sequence[Palm]) -> list[Palm]:
    """The palms, best first, without those that overlap a better one."""
    distinct: list[Palm] = []
    for palm in sorted(palms, key=lambda p: -p.score):
        if all(box_iou(palm.box_xyxy_px, other.box_xyxy_px) < SAME_PALM for other in distinct):
            distinct.append(palm)
    return distinct


def anchors() -> Array:
    """(2016, 2) centers of the SSD anchors in fractions of the region, in the order of the model's outputs."""
    centers = []
    for cells, repeats in GRIDS:
        line = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(line, line, indexing="ij")
        centers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(centers)


def _tile_centers(width: int, height: int, side: float, overlap: float) -> Iterator[Array]:
    """Centers of squares that cover the image, with neighbors overlapping by at least the fraction `overlap`."""
    axes = []
    for length in (width, height):
        if side >= length:
            axes.append(np.array([(length - 1) / 2]))
        else:
            steps = math.ceil((length - side) / (side * (1 - overlap))) + 1
            axes.append(np.linspace(side / 2, length - side / 2, steps) - 0.5)
    for y in axes[1]:
        for x in axes[0]:
            yield np.array([x, y])


def _contrast(image: Array, center_px: Array, side_px: float) -> float:
    """Standard deviation of the pixels of a square, subsampled by four in x and y."""
    x0, y0 = np.maximum(center_px - side_px / 2, 0).astype(int)
    x1, y1 = np.ceil(center_px + side_px / 2).astype(int) + 1
    return float(image[y0:y1:4, x0:x1:4].std())


def _enlarged(palm: Palm, factor: float) -> Palm:
    """A palm of the shrunk image, in pixels of the original image."""
    return Palm((palm.box_xyxy_px + 0.5) / factor - 0.5, palm.angle_rad, palm.score)
