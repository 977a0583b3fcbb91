"""OpenPose's hand keypoint detector, as its own extractor runs it (`handExtractorCaffe.cpp`).

A square of 2.2 times the hand's box (the scale it was trained at) is warped to 368 x 368 pixels; left hands are
mirrored, since the network knows right hands only; the maximum of each heat map, found on the maps enlarged to the
square's pixels, is a keypoint and its height the confidence. Of several scales the most confident one wins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskhand.annotate.detectors import Array, Detections, check_inputs
from maskhand.annotate.openpose_net import HandPoseNet, load_hand_pose_net
from maskhand.assets import OPENPOSE_FILE, AssetError, openpose_weights_path
from maskhand.conventions import NUM_JOINTS, Side

INPUT_PX = 368
VIEW = 2.2
"""Side of the square in longer sides of the box around the joints (the HandDB boxes it was trained on)."""
MIN_CONFIDENCE = 0.05
"""Peaks below this are noise: the joint counts as not found."""
REVISION = "1"


class OpenPoseHand:
    """`KeypointDetector` over OpenPose's hand network."""

    name = "openpose-hand"

    def __init__(
        self, net: HandPoseNet, weights_sha256: str, input_px: int = INPUT_PX, scales: Sequence[float] = (1.0,)
    ) -> None:
        """`scales`: sizes of the square tried, relative to `VIEW` (OpenPose's multi-scale mode: 6 in 0.8..1.2)."""
        self.net, self.input_px, self.scales = net, input_px, tuple(scales)
        tried = "" if self.scales == (1.0,) else "-" + "x".join(f"{s:g}" for s in self.scales)
        self.version = f"{weights_sha256[:12]}-{REVISION}{tried}"

    @classmethod
    def from_assets(cls, assets: str | Path) -> OpenPoseHand:
        """With the weights in the assets folder; AssetError that says what to do when they are not there."""
        path = openpose_weights_path(assets)
        if not path.is_file():
            raise AssetError(
                f"{path} does not exist: the detector openpose-hand needs OpenPose's hand weights; get {OPENPOSE_FILE} "
                f"as linked by github.com/Hzzone/pytorch-openpose and copy it there, or use the detector litert-hand"
            )
        return cls.from_file(path)

    @classmethod
    def from_file(cls, path: str | Path, **settings) -> OpenPoseHand:
        """With a weights file; WeightsError when it does not fit."""
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return cls(load_hand_pose_net(path), digest, **settings)

    def detect(
        self, images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None = None
    ) -> Detections:
        """See `KeypointDetector.detect`. Without a known side a hand is looked at as it is and mirrored, and the better
        look tells the side; presence is the mean confidence of the joints."""
        check_inputs(images, boxes_xyxy_px, sides)
        known = sides if sides is not None else [None] * len(images)
        boxes = np.asarray(boxes_xyxy_px, np.float64)
        return Detections.stack([self._one(*row) for row in zip(images, boxes, known, strict=True)])

    def _one(self, image: Array, box_px: Array, side: Side | None) -> Detections:
        center, extent = (box_px[:2] + box_px[2:]) / 2, float((box_px[2:] - box_px[:2]).max())
        mirrored = {"right": (False,), "left": (True,), None: (False, True)}[side]
        looks = [(VIEW * scale * extent, mirror) for mirror in mirrored for scale in self.scales]
        affines = [_affine(center, size_px, mirror, self.input_px) for size_px, mirror in looks]
        shape = (self.input_px, self.input_px)
        crops = np.stack([cv2.warpAffine(image, affine, shape, flags=cv2.INTER_LINEAR) for affine in affines])
        with torch.inference_mode():
            peaks, confidence = find_peaks(self.net(to_input(crops))[:, :NUM_JOINTS], self.input_px)
        means = confidence.mean(axis=1)
        best = int(means.argmax())
        image_from_crop = cv2.invertAffineTransform(affines[best])
        keypoints = peaks[best] @ image_from_crop[:, :2].T + image_from_crop[:, 2]
        right = 0.5 if side is not None else _right_share(means)
        return Detections(
            keypoints[None].astype(np.float32),
            confidence[best][None].astype(np.float32),
            means[best][None].astype(np.float32),
            np.array([right], np.float32),
        )


def to_input(crops_rgb: Array) -> Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32: BGR, divided by 256, minus one half (OpenPose)."""
    bgr = np.ascontiguousarray(crops_rgb[..., ::-1].transpose(0, 3, 1, 2))
    return torch.from_numpy(bgr).float() / 256 - 0.5


def find_peaks(heat: Tensor, size_px: int) -> tuple[Array, Array]:
    """Highest point of each heat map.

    heat: (N, K, h, w); size_px: side of the square the maps cover. Returns (N, K, 2) x, y in the square's pixels,
    refined below a pixel by a parabola through the neighbours, and (N, K) confidence in 0..1, 0 for no peak.
    """
    # Half-pixel centres on both sides: map cell i covers pixels 8 i .. 8 i + 7.
    large = functional.interpolate(heat.float(), size=(size_px, size_px), mode="bicubic", align_corners=False).numpy()
    flat = large.reshape(*large.shape[:2], -1)
    y, x = np.divmod(flat.argmax(axis=2), size_px)
    height = flat.max(axis=2)
    peaks = np.stack([_refine(large, x, y, axis=3), _refine(large, x, y, axis=2)], axis=2)
    confidence = np.where(height < MIN_CONFIDENCE, 0.0, np.clip(height, 0.0, 1.0))
    return peaks, confidence


def _refine(maps: Array, x: Array, y: Array, axis: int) -> Array:
    """Position of the vertex of the parabola through a peak and its two neighbours along one axis."""
    n, k = np.ogrid[: maps.shape[0], : maps.shape[1]]
    last = maps.shape[2] - 1
    position = (x if axis == 3 else y).clip(1, last - 1)

    def at(step: int) -> Array:
        return maps[n, k, y, position + step] if axis == 3 else maps[n, k, position + step, x]

    before, here, after = at(-1), at(0), at(1)
    bend = before - 2 * here + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend < -1e-12)
    inside = np.abs(shift) <= 1
    return np.where(inside, position + shift, x if axis == 3 else y).astype(np.float64)


def _affine(center_px: Array, side_px: float, mirror: bool, out_px: int) -> Array:
    """(2, 3): picture -> square crop; a mirrored one has its x axis turned round."""
    scale = out_px / side_px
    linear = np.diag([-scale if mirror else scale, scale])
    return np.hstack([linear, ((out_px - 1) / 2 - linear @ center_px)[:, None]])


def _right_share(means: Array) -> float:
    """Mean confidences of the looks at the hand as it is, then of the mirrored ones -> 0..1, how right the hand is."""
    right, left = (float(half.max()) for half in np.split(means, 2))
    return right / (right + left) if right + left > 0 else 0.5
