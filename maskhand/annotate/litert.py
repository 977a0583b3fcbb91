"""The embedded keypoint detector: the open hand landmark model (Apache-2.0, 5 MB) on LiteRT, made robust to rotation.

The model wants one roughly upright hand in a square image; a box alone does not say which way up the hand is. So a
hand is looked at in pairs: a first look at an assumed rotation tells where wrist and middle knuckle are, a second look
is turned upright by them and re-centered. Both looks must agree, fill the box they were asked about and show the side
that is known; if they do, two runs are enough, else the next assumed rotation is tried and the best pair wins.

Measured (error as a share of the joints' longer side, misses count): PCK@.1/.2 = .75/.91 with 5.7 runs on 72 real hands
(six annotated InterHand2.6M hands, four of them interacting, mirrored and turned by random angles), where the best of 8
single looks reaches .73/.92, and .71/.91 with 4.7 runs on 80 synthetic ones. One run takes 7-8 ms on one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskhand.annotate.detectors import Array, Detections, check_inputs
from maskhand.conventions import NUM_JOINTS, Side
from maskhand.fetched_models import LANDMARK_MODEL, hand_models

INPUT_PX = 224
WRIST, MIDDLE_MCP = 0, 9

FIRST_VIEW = 2.0
"""Side of the first look in longer sides of the box, which is tight around the joints: the model expects air around the
hand (measured: 1.3 loses a tenth of PCK@.1 against 2)."""
SECOND_VIEW = 1.7
"""Side of the second look in longer sides of the first look's landmarks."""
TURNS = (0.0, math.pi, math.pi / 2, -math.pi / 2, math.pi / 4, -3 * math.pi / 4, 3 * math.pi / 4, -math.pi / 4)
"""Assumed rotations in the order they are tried."""
ACCEPT = 0.25
"""A pair of looks with this quality ends the search; 0.35 costs one more run per hand for .01 of PCK@.1."""
HOPELESS = 0.05
"""A first look below this quality earns no second one."""
AGREEMENT = 0.1
"""Scale of disagreement between two looks, in longer sides of the box."""
REVISION = "2"
"""Raise whenever the procedure above changes: cached keypoints name it."""


@dataclass(frozen=True)
class Look:
    """What the model said about one crop. Axes of the image: x right, y down, z away from the camera."""

    keypoints_px: Array
    """(21, 2) float64, pixels of the image."""
    z_px: Array
    """(21,) depth behind the wrist in pixels of the image."""
    world_m: Array
    """(21, 3) meters, from the hand's middle."""
    presence: float
    right_probability: float


@dataclass(frozen=True)
class Pair:
    """Two looks at the same hand, joined."""

    detection: Detections
    """One hand."""
    quality: float
    """0..1: both see a hand of the known side, agree, and fill the box that was asked about."""


class LandmarkNet:
    """The landmark model: a square region of an image, at any rotation, to 21 points."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(str(model), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in self._net.get_output_details()}
        names = ("Identity", "Identity_1", "Identity_2", "Identity_3")
        self._points, self._presence, self._right, self._world = (outputs[name] for name in names)

    def look(self, image: Array, center_px: Array, side_px: float, angle_rad: float) -> Look:
        """Look at the square of that side around `center_px`, turned clockwise by `angle_rad`."""
        crop = square_crop(image, center_px, side_px, angle_rad, INPUT_PX)
        self._net.set_tensor(self._input, crop[None].astype(np.float32) / np.float32(255))
        self._net.invoke()
        points, world = (
            self._net.get_tensor(index).reshape(NUM_JOINTS, 3).astype(np.float64)
            for index in (self._points, self._world)
        )
        image_from_crop = cv2.invertAffineTransform(square_affine(center_px, side_px, angle_rad, INPUT_PX))
        c, s = math.cos(angle_rad), math.sin(angle_rad)
        return Look(
            keypoints_px=points[:, :2] @ image_from_crop[:, :2].T + image_from_crop[:, 2],
            z_px=points[:, 2] * (side_px / INPUT_PX),
            world_m=world @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]),
            presence=float(self._net.get_tensor(self._presence)[0, 0]),
            right_probability=float(self._net.get_tensor(self._right)[0, 0]),
        )


class LitertHand:
    """`KeypointDetector` over the landmark model."""

    name = "litert-hand"
    version = f"{LANDMARK_MODEL.sha256[:12]}-{REVISION}"

    def __init__(self, assets: str | Path, threads: int = 1) -> None:
        """Takes the model from the assets folder, fetching it when missing; raises AssetError."""
        self.net = LandmarkNet(hand_models(assets).landmark, threads)

    def detect(
        self, images: Sequence[Array], boxes_xyxy_px: Array, sides: Sequence[Side | None] | None = None
    ) -> Detections:
        """See `KeypointDetector.detect`. A joint's confidence: how sure the model is of the hand, times how well its
        two looks agree about the joint."""
        check_inputs(images, boxes_xyxy_px, sides)
        known = sides if sides is not None else [None] * len(images)
        return Detections.stack(
            [self.best_pair(*row).detection for row in zip(images, boxes_xyxy_px, known, strict=True)]
        )

    def best_pair(self, image: Array, box_px: Array, side: Side | None) -> Pair:
        """The first pair of looks that is good enough, else the best of all assumed rotations."""
        best: Pair | None = None
        for pair in self._pairs(image, np.asarray(box_px, np.float64), side):
            if best is None or pair.quality > best.quality:
                best = pair
            if best.quality > ACCEPT:
                break
        assert best is not None
        return best

    def _pairs(self, image: Array, box_px: Array, side: Side | None) -> Iterator[Pair]:
        center, extent = (box_px[:2] + box_px[2:]) / 2, float((box_px[2:] - box_px[:2]).max())
        for turn in TURNS:
            first = self.net.look(image, center, FIRST_VIEW * extent, turn)
            quality = look_quality(first, box_px, side)
            if quality < HOPELESS:
                yield Pair(_detection(first, np.zeros(NUM_JOINTS)), 0.0)
                continue
            angle = upright_angle(first.keypoints_px)
            found_center, found_extent = turned_extent(first.keypoints_px, angle)
            # Half way between what was asked about and what was found: a bad first look cannot run away with the crop.
            view = (SECOND_VIEW * found_extent + FIRST_VIEW * extent) / 2
            second = self.net.look(image, (found_center + center) / 2, view, angle)
            distance = float(np.linalg.norm(first.keypoints_px - second.keypoints_px, axis=1).mean()) / extent
            both = math.sqrt(quality * look_quality(second, box_px, side)) * math.exp(-distance / AGREEMENT)
            # The side of the upright look: left and right are hard to tell upside down.
            yield Pair(join_looks(first, second, extent, second.right_probability), both)


def join_looks(first: Look, second: Look, extent_px: float, right_probability: float) -> Detections:
    """The mean of two looks at one hand; a joint's confidence is how well they agree about it, times presence."""
    distance = np.linalg.norm(first.keypoints_px - second.keypoints_px, axis=1) / extent_px
    presence = math.sqrt(first.presence * second.presence)
    mean = Look(
        keypoints_px=(first.keypoints_px + second.keypoints_px) / 2,
        z_px=(first.z_px + second.z_px) / 2,
        world_m=(first.world_m + second.world_m) / 2,
        presence=presence,
        right_probability=right_probability,
    )
    return _detection(mean, presence * np.exp(-distance / AGREEMENT))


def _detection(look: Look, confidence: Array) -> Detections:
    """One hand; confidence (21,)."""
    values = (look.keypoints_px, confidence, look.presence, look.right_probability, look.z_px, look.world_m)
    return Detections(*(np.asarray(value, np.float32)[None] for value in values))


def look_quality(look: Look, box_px: Array, side: Side | None) -> float:
    """0..1: a hand is there, of the known side, and fills the box that was asked about."""
    right = look.right_probability
    as_known = 1.0 if side is None else 0.1 + 0.9 * (right if side == "right" else 1 - right)
    return look.presence * as_known * box_overlap(points_box(look.keypoints_px), box_px)


def points_box(points_px: Array) -> Array:
    """(N, 2) points -> (4,) tight box."""
    return np.concatenate([points_px.min(0), points_px.max(0)])


def box_overlap(a_xyxy: Array, b_xyxy: Array) -> float:
    """Intersection over union of two boxes."""
    inside = np.clip(np.minimum(a_xyxy[2:], b_xyxy[2:]) - np.maximum(a_xyxy[:2], b_xyxy[:2]), 0, None).prod()
    union = (a_xyxy[2:] - a_xyxy[:2]).prod() + (b_xyxy[2:] - b_xyxy[:2]).prod() - inside
    return float(inside / union) if union > 0 else 0.0


def upright_angle(keypoints_px: Array) -> float:
    """How far (radians, clockwise in the image) the hand is turned from fingers-up, by wrist and middle knuckle."""
    x, y = keypoints_px[MIDDLE_MCP] - keypoints_px[WRIST]
    return math.atan2(y, x) + math.pi / 2


def turned_extent(points_px: Array, angle_rad: float) -> tuple[Array, float]:
    """Center (2,) and longer side of the tight box of the points whose axes are turned by `angle_rad`."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    upright_from_image = np.array([[c, s], [-s, c]])
    box = points_box(points_px @ upright_from_image.T)
    return upright_from_image.T @ ((box[:2] + box[2:]) / 2), float((box[2:] - box[:2]).max())


def square_affine(center_px: Array, side_px: float, angle_rad: float, out_px: int) -> Array:
    """(2, 3) affine: image -> square crop of `out_px`, the image's square being turned clockwise by `angle_rad`."""
    scale = out_px / side_px
    c, s = math.cos(angle_rad) * scale, math.sin(angle_rad) * scale
    linear = np.array([[c, s], [-s, c]])
    return np.hstack([linear, ((out_px - 1) / 2 - linear @ np.asarray(center_px))[:, None]])


def square_crop(image: Array, center_px: Array, side_px: float, angle_rad: float, out_px: int) -> Array:
    """(out_px, out_px, 3) crop of that square, black outside the image; a large square is shrunk by areas first."""
    crop_from_image = square_affine(center_px, side_px, angle_rad, out_px)
    shrink = min(1.0, 2 * out_px / side_px)
    if shrink < 1:
        # Only the part that the turned square covers, and what its edges are interpolated with.
        reach = side_px / 2 * (abs(math.cos(angle_rad)) + abs(math.sin(angle_rad))) + 2 / shrink
        size = np.array([image.shape[1], image.shape[0]])
        low = np.floor(center_px - reach).astype(int).clip(0, size - 1)
        low = np.array([_on_grid(edge, shrink) for edge in low.tolist()])
        high = np.ceil(center_px + reach).astype(int).clip(low + 1, size)
        crop_from_image[:, 2] += crop_from_image[:, :2] @ low
        part = image[low[1] : high[1], low[0] : high[0]]
        image = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        crop_from_image = _after_resize(crop_from_image, shrink)
    return cv2.warpAffine(image, crop_from_image, (out_px, out_px))


def _on_grid(edge: int, shrink: float) -> int:
    """At most 64 px before `edge`, the place that shrinks to nearly a whole pixel: a part's pixels are the whole's."""
    before = np.arange(max(edge - 64, 0), edge + 1)
    return int(before[np.argmin(np.abs(before * shrink - np.rint(before * shrink)))])


def _after_resize(crop_from_image: Array, factor: float) -> Array:
    """The same crop taken from the image resized by `factor` (cv2's pixel centers: x' = (x + 1/2) f - 1/2)."""
    image_from_small = np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5], [0, 0, 1]])
    return crop_from_image @ image_from_small
