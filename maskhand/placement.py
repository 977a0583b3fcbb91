"""The placement of predicted hands in camera space, for evaluation, pseudo ground truth and photos.

The network reads a crop, mirrored if the hand is a left one; the placement is in the original image. A hand is placed
by its 2D keypoints, the input of the network, or by the network's own crop camera, whose projected joints then serve
as keypoints.

A crop may be turned (`data.upright`), and what the network predicts is in the axes of its crop. `in_image_axes` turns a
prediction back, right after it was made; everything else here and later is in the axes of the image's camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MIRROR_POINT
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.camera import MIN_SEEN, project_crop, translation_on_points
from maskhand.hand.rotations import turn_hands
from maskhand.sample import HandSample

PlacedBy = Literal["keypoints", "model"]
"""What places a hand: the detected 2D keypoints, or the network's crop camera."""

PLACED_BY: Final[tuple[PlacedBy, PlacedBy]] = ("keypoints", "model")
"""All values of `PlacedBy`."""


@dataclass(frozen=True)
class Placement:
    """The placement of B hands in camera space: OpenCV camera axes, meters, stored pixels; left hands unmirrored."""

    translation_m: Array
    """(B, 3) float64, added to the model's points (mirrored, if left)."""
    mirror: Array
    """(B, 3) float64, signs that mirror left hands back."""
    K_px: Array
    """(B, 3, 3) float64 intrinsics of the stored images."""
    by_keypoints: Array
    """(B,) bool: the hand is placed by its 2D keypoints, not by the network's camera."""

    def to_camera(self, points_m: Tensor) -> Array:
        """(B, N, 3) points of predicted right hands without translation -> (B, N, 3) float64 in camera axes, meters."""
        return points_m.double().numpy() * self.mirror[:, None] + self.translation_m[:, None]

    def pixels(self, points_cam_m: Array) -> Array:
        """(B, N, 3) camera axes, meters -> (B, N, 2) float64 pixels."""
        projected = points_cam_m @ self.K_px.transpose(0, 2, 1)
        return projected[..., :2] / projected[..., 2:]


def image_camera(sample: HandSample) -> Array:
    """(3, 3) float64 K, pixels: the known camera, else the assumed one."""
    return assumed_camera(sample.image_size_px) if sample.camera is None else sample.camera.K_px.astype(np.float64)


def image_cameras(samples: Sequence[HandSample]) -> Array:
    """(B, 3, 3) float64, `image_camera` of each."""
    return np.stack([image_camera(sample) for sample in samples])


def image_from_crop_axes(hands: HandBatch) -> Tensor:
    """(B, 3, 3) float64 rotations about the optical axis, from the axes of the crops to those of the (mirrored, if
    left) images; the identity for crops that are not turned."""
    linear = hands.crop_from_image[:, :, :2].double()
    c, s = (linear[:, :, 0] / torch.linalg.vector_norm(linear[:, :, 0], dim=1, keepdim=True)).unbind(1)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, s, zero, -s, c, zero, zero, zero, one], dim=1).unflatten(1, (3, 3))


def in_image_axes(prediction: HandPrediction, hands: HandBatch) -> HandPrediction:
    """B predicted hands, in the axes of their crops, turned about the wrist to the axes of their images' cameras.

    hands: the input of the network. Crop camera and projected joints stay those of the crop.
    """
    turn, wrist = image_from_crop_axes(hands), prediction.joints_m[:, :1]
    return replace(
        prediction,
        rotmats=turn_hands(prediction.rotmats, turn.to(prediction.rotmats)),
        vertices_m=_turned(prediction.vertices_m, wrist, turn),
        joints_m=_turned(prediction.joints_m, wrist, turn),
    )


def in_crop_axes(joints_m: Tensor, hands: HandBatch) -> Tensor:
    """(B, 21, 3) joints of hands in the axes of their images' cameras, turned about the wrist to those of the crops."""
    return _turned(joints_m, joints_m[:, :1], image_from_crop_axes(hands).mT)


def _turned(points_m: Tensor, wrist_m: Tensor, turn: Tensor) -> Tensor:
    """(B, N, 3) points turned by (B, 3, 3) about the wrists (B, 1, 3), about which a hand model turns."""
    # Added to the points: exact where nothing is turned.
    more = (turn - torch.eye(3).to(turn)).to(points_m)
    return points_m + (points_m - wrist_m) @ more.mT


def place_hands(
    prediction: HandPrediction, hands: HandBatch, K_px: Array, crop_px: int, placed_by: PlacedBy
) -> Placement:
    """Place B predicted right hands, in the axes of their images, in the space of their cameras K_px (B, 3, 3).

    hands: the input of the network. For `keypoints` its `keypoints_2d` place the hands that have at least `MIN_SEEN` of
    them; the network's crop camera places the others, and all of them for `model`.
    """
    keypoints = hands.keypoints_2d.double().numpy()
    confidence = np.maximum(keypoints[..., 2], 0)
    by_keypoints = ((confidence > 0).sum(1) >= MIN_SEEN) & (placed_by == "keypoints")
    projected = project_crop(in_crop_axes(prediction.joints_m.double(), hands), prediction.camera.double()).numpy()
    points = np.where(by_keypoints[:, None, None], keypoints[..., :2], projected)
    mirror = np.where(hands.is_left.numpy()[:, None], MIRROR_POINT, 1.0)
    translation = translation_on_points(
        prediction.joints_m.double().numpy() * mirror[:, None],
        _in_image(points, hands, crop_px),
        np.where(by_keypoints[:, None], confidence, 1.0),
        K_px,
    )
    return Placement(translation, mirror, K_px, by_keypoints)


def _in_image(points: Array, hands: HandBatch, crop_px: int) -> Array:
    """(B, N, 2) crop coordinates -> pixels of the stored images."""
    crop_from_image = hands.crop_from_image.double().numpy()
    linear, offset = crop_from_image[:, :, :2], crop_from_image[:, None, :, 2]
    points_px = ((points + 0.5) * crop_px - offset) @ np.linalg.inv(linear).transpose(0, 2, 1)
    left = hands.is_left.numpy()
    points_px[left, :, 0] = hands.image_size_px.numpy()[left, :1] - 1 - points_px[left, :, 0]
    return points_px
