"""OpenPose's hand keypoint detector, run as in OpenPose's `handExtractorCaffe.cpp`.

A square of 2.2 times the hand's box (its training scale) is warped to 368 x 368 pixels; left hands are mirrored, since
the network was trained on right hands only. The maximum of each heat map, resized to the square's pixels, is a
keypoint, and its value the confidence. Of several scales the most confident one is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskhand.annotate.detectors import Detections, check_inputs
from maskhand.annotate.openpose_net import HandPoseNet, load_hand_pose_net
from maskhand.arrays import Array
from maskhand.assets import OPENPOSE_FILE, openpose_weights_path
from maskhand.conventions import NUM_JOINTS, Side
from maskhand.device import accelerator
from maskhand.fetched_models import AssetError
from maskhand.geometry2d import crop_affine

INPUT_PX = 368
CROP_SIDE = 2.2
"""Side of the square in longer sides of the box around the joints (the HandDB boxes it was trained on)."""
MIN_CONFIDENCE = 0.05
"""Lower peaks are noise: the joint counts as not found."""
REVISION = "1"
BATCH_SIZE = {"cuda": 16}
"""Crops per forward pass by type of device, one for others. Sixteen keep a GPU busy, and their resized maps take 190
MB; a CPU gains nothing, and with one crop a hand's results do not depend on others even by rounding."""


@dataclass(frozen=True)
class _Crop:
    """A square of an image, possibly mirrored."""

    hand: int
    """Row of the image."""
    mirror: bool
    affine: Array
    """(2, 3): image -> crop."""


class OpenPoseHand:
    """`KeypointDetector` with OpenPose's hand network, on the accelerator if there is one."""

    name = "openpose-hand"

    def __init__(
        self, net: HandPoseNet, weights_sha256: str, input_px: int = INPUT_PX, scales: Sequence[float] = (1.0,)
    ) -> None:
        """`scales`: sizes of the square tried, relative to `CROP_SIDE` (OpenPose's multi-scale mode: 6 in 0.8..1.2)."""
        self.net, self.input_px, self.scales = net, input_px, tuple(scales)
        tried = "" if self.scales == (1.0,) else "-" + "x".join(f"{s:g}" for s in self.scales)
        self.version = f"{weights_sha256[:12]}-{REVISION}{tried}"

    @classmethod
    def from_assets(cls, assets: str | Path) -> OpenPoseHand:
        """With the weights in the assets folder; AssetError with instructions if they are missing."""
        path = openpose_weights_path(assets)
        if not path.is_file():
            raise AssetError(
                f"{path} does not exist: the detector openpose-hand needs OpenPose's hand weights; get {OPENPOSE_FILE} "
                f"as linked by github.com/Hzzone/pytorch-openpose and copy it there, or use the detector litert-hand"
            )
        return cls.from_file(path)

    @classmethod
    def from_file(cls, path: str | Path, **settings) -> OpenPoseHand:
        """With a weights file; WeightsError if it does not fit."""
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return cls(load_hand_pose_net(path), digest, **settings)

    def detect(
        self, images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None = None
    ) -> Detections:
        """See `KeypointDetector.detect`. If the side is unknown, both the original and the mirrored crop are tried, and
        the better one determines the side; presence is the mean confidence of the joints."""
        check_inputs(images, boxes_xyxy_px, sides)
        known = sides if sides is not None else [None] * len(images)
        boxes = np.asarray(boxes_xyxy_px, np.float64)
        crops = [
            crop for k, (box, side) in enumerate(zip(boxes, known, strict=True)) for crop in self._crops(k, box, side)
        ]
        peaks, confidence = self._peaks(images, crops)
        means = confidence.mean(axis=1)
        ends = np.cumsum(np.bincount([crop.hand for crop in crops], minlength=len(images)))
        rows = [slice(start, end) for start, end in zip(ends - np.diff(ends, prepend=0), ends, strict=True)]
        best = [row.start + int(means[row].argmax()) for row in rows]
        keypoints = [_in_image(peaks[k], crops[k].affine) for k in best]
        right = [0.5 if side is not None else _right_share(means[row]) for side, row in zip(known, rows, strict=True)]
        return Detections(
            np.asarray(keypoints, np.float32).reshape(-1, NUM_JOINTS, 2),
            confidence[best].astype(np.float32),
            means[best].astype(np.float32),
            np.asarray(right, np.float32),
        )

    def _crops(self, hand: int, box_px: Array, side: Side | None) -> list[_Crop]:
        """The crops for one hand at all scales: mirrored for a left hand, both versions if the side is unknown."""
        center, extent = (box_px[:2] + box_px[2:]) / 2, float((box_px[2:] - box_px[:2]).max())
        mirrored = {"right": (False,), "left": (True,), None: (False, True)}[side]
        sides_px = CROP_SIDE * np.array(self.scales) * extent
        centers, upright = np.tile(center, (len(sides_px), 1)), np.zeros(len(sides_px))
        center_at = (self.input_px - 1) / 2
        return [
            _Crop(hand, mirror, affine)
            for mirror in mirrored
            for affine in crop_affine(centers, sides_px, upright, self.input_px, center_at=center_at, mirrored=mirror)
        ]

    def _peaks(self, images: Sequence[Array], crops: Sequence[_Crop]) -> tuple[Array, Array]:
        """(crops, 21, 2) peaks in pixels of the crops and (crops, 21) confidence."""
        shape, device = (self.input_px, self.input_px), accelerator()
        self.net.to(device)  # not earlier, as reading the version needs no GPU
        batch_size = BATCH_SIZE.get(device.type, 1)
        peaks, confidence = [np.zeros((0, NUM_JOINTS, 2))], [np.zeros((0, NUM_JOINTS))]
        for start in range(0, len(crops), batch_size):
            pixels = np.stack(
                [
                    cv2.warpAffine(images[crop.hand], crop.affine, shape, flags=cv2.INTER_LINEAR)
                    for crop in crops[start : start + batch_size]
                ]
            )
            with torch.inference_mode():
                heat = self.net(to_input(torch.from_numpy(pixels).to(device)))[:, :NUM_JOINTS]
                found = find_peaks(heat, self.input_px)
            peaks.append(found[0])
            confidence.append(found[1])
        return np.concatenate(peaks), np.concatenate(confidence)


def to_input(crops_rgb: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32: BGR, divided by 256, minus one half (OpenPose)."""
    return crops_rgb.flip(3).permute(0, 3, 1, 2).contiguous().float() / 256 - 0.5


def find_peaks(heat: Tensor, size_px: int) -> tuple[Array, Array]:
    """The maximum of each heat map.

    heat: (N, K, h, w); size_px: side of the square that the maps cover. Returns (N, K, 2) x, y in the square's pixels,
    with subpixel refinement by a parabola through the neighbors, and (N, K) confidence in 0..1, 0 for no peak.
    """
    # Half-pixel centers on both sides: map cell i covers pixels 8 i .. 8 i + 7.
    large = functional.interpolate(heat.float(), size=(size_px, size_px), mode="bicubic", align_corners=False)
    height, place = large.flatten(2).max(dim=2)
    x, y = place % size_px, place.div(size_px, rounding_mode="floor")
    peaks = torch.stack([_refine(large, x, y, 1), _refine(large, x, y, size_px)], dim=2)
    confidence = torch.where(height < MIN_CONFIDENCE, 0.0, height.clamp(0.0, 1.0))
    return peaks.cpu().numpy(), confidence.cpu().numpy()


def _refine(maps: Tensor, x: Tensor, y: Tensor, step: int) -> Tensor:
    """Position of the vertex of the parabola through a peak and its two neighbors along one axis, float64.

    maps (N, K, S, S); x, y (N, K); step: offset between neighbors in the flattened map, 1 along x and S along y.
    """
    last, size = maps.shape[3] - 1, maps.shape[3]
    along, across, across_step = (x, y, size) if step == 1 else (y, x, 1)
    position = along.clamp(1, last - 1)
    middle = (position * step + across * across_step)[..., None]
    before, here, after = (maps.flatten(2).gather(2, middle + k * step).squeeze(2) for k in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = torch.where(bend < -1e-12, (before - after) / (2 * bend), 0.0)
    return torch.where(shift.abs() <= 1, position + shift, along).double()


def _in_image(peaks: Array, affine: Array) -> Array:
    """(21, 2) pixels of a crop -> pixels of its image; affine (2, 3): image -> crop."""
    back = cv2.invertAffineTransform(affine)
    return peaks @ back[:, :2].T + back[:, 2]


def _right_share(means: Array) -> float:
    """Mean confidences of the original crops, then of the mirrored ones -> 0..1, the probability of a right hand."""
    right, left = (float(half.max()) for half in np.split(means, 2))
    return right / (right + left) if right + left > 0 else 0.5
