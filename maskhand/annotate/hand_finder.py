"""Hand finder for full photos: palm detection (Apache-2.0 SSD, 2 MB) at several scales, each palm verified.

Palms are searched in the whole image and, unless it is small, in overlapping half-size tiles. A palm gives position,
size and rotation; from there the landmark model runs, is moved to the hand that it found, and runs again until two
passes agree. What is not a hand fails: its presence is low, or the passes do not settle. The side comes from the
landmark model.

When no palm is found, the image may already be the crop of a hand (FreiHAND's are), and last come smaller tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.annotate.litert import SECOND_CROP, LitertHand, merged_landmarks
from maskhand.annotate.upright_crop import shrunk, square_affine, upright_angle, upright_extent
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.fetched_models import hand_models
from maskhand.geometry2d import box_iou, tight_box

PALM_INPUT_PX = 192
GRIDS = ((24, 2), (12, 6))
"""(cells per side, anchors per cell) of the model's two feature maps: 24*24*2 + 12*12*6 = 2016 anchors."""
PALM_KEYPOINTS = 7
PALM_WRIST, PALM_MIDDLE = 0, 2
PALM_JOINTS = (0, 5, 9, 13, 17)
"""Wrist and knuckles, OpenPose order: the palm of a hand whose keypoints are known."""
KNOWN_PALM = 0.35
"""A palm nearer than this to that of a known hand, in longer sides of the hand's box, is that palm."""
PALM_SCORE = 0.5
HAND_FROM_PALM = 2.6
"""Side of the region around the hand in palm sides; its center lies half a palm toward the fingers (MediaPipe)."""
HAND_SHIFT = 0.5
FOLLOW_CROP = 2.0
"""Side of the first crop in a film's next frame, in longer sides of the hand before: another one than the second's."""
HAND_SCORE = 0.6
DISAGREEMENT_SCALE = 0.25
"""Scale of the disagreement between two passes in hand sizes; wider than in `litert`, for interlocked hands."""
SETTLED, MAX_PASSES = 0.06, 4
"""Passes end when two disagree by less than this, or after this many."""
CENTRAL_BOXES = (0.5, 0.75)
"""Shares of the image taken as the hand's box when no palm was found."""
CENTRAL_QUALITY = 0.25
"""`PassPair.quality` above which that was a hand: 7 of 8 FreiHAND crops reach it, no full photo passed 0.16."""
WHOLE_PX = 288
"""An image up to this length is not searched in tiles where it shows a hand as a whole: the palm model sees it at two
thirds of its resolution at least. In 200 rendered images of 224 px the tiles found no further hand, and five parts of
one as a second."""
LONGEST_PX = 4096
"""A longer image is searched in a copy of this length; the palm model sees less than that."""
MIN_HAND_PX = 24
SAME_PALM, SAME_HAND = 0.6, 0.4
"""Intersections over union above which two detections are one."""
PART_SIZE: Mapping[bool, float] = {True: 0.65, False: 0.4}
PART_INSIDE, PART_REACH = 0.9, 0.25
"""A detection is a part of a better one when its longer side is below PART_SIZE of the other's (same side or not) and
more than PART_INSIDE of its box lies in the other's, grown by PART_REACH of its longer side: a finger detected as a
hand is often one that the hand's landmarks did not reach. Bent fingers that pass for a hand have the side of the hand;
a fist is half an open hand long, and a hand before a person's hand is the person's other one."""


@dataclass(frozen=True)
class Palm:
    """A palm in the image's pixels."""

    box_xyxy_px: Array
    angle_rad: float
    """Rotation of the hand, clockwise from fingers-up."""
    score: float


class PalmNet:
    """The palm detection model on one square region."""

    def __init__(self, model: Path, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(str(model), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {d["name"]: d["index"] for d in self._net.get_output_details()}
        self._boxes, self._scores = outputs["Identity"], outputs["Identity_1"]
        self._anchors = anchors()

    def palms(self, image: Array, center_px: Array, side_px: float) -> list[Palm]:
        """Palms in the square of that side; parts of it outside the image are black."""
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


class HandFinder:
    """Finds hands in photos with both models."""

    def __init__(self, assets: str | Path) -> None:
        """Takes the models from the assets folder, fetching them when missing; raises AssetError."""
        models = hand_models(assets)
        self._palm_net, self._hand = PalmNet(models.palm), LitertHand(assets)
        self._landmark_net = self._hand.net

    def find(self, image: Array, max_hands: int = 10) -> list[HandBox]:
        """The hands of an image (H, W, 3) uint8 RGB, best first; empty when there is none."""
        if (factor := LONGEST_PX / max(image.shape[:2])) < 1:
            smaller = shrunk(image, factor)
            return [_enlarged(hand, factor) for hand in self.find(smaller, max_hands)]
        if max(image.shape[:2]) < MIN_HAND_PX:
            return []
        hands = (
            (self._from_palms(image, (1,)) if max(image.shape[:2]) <= WHOLE_PX else [])
            or self._from_palms(image, (1, 2))
            or self._from_central_box(image)
            or self._from_palms(image, (3, 4))
        )
        return hands[:max_hands]

    def palms(
        self, image: Array, side_px: float, overlap: float = 0.5, min_contrast: float | None = None
    ) -> list[Palm]:
        """Palms in tiles of that side, neighbors overlapping by that share.

        min_contrast: standard deviation of gray values up to which a tile is passed over as a wall or the sky.
        """
        height, width = image.shape[:2]
        # Shrinking once per scale, with area averaging, keeps small palms from aliasing away.
        factor = min(1.0, PALM_INPUT_PX / side_px)
        small = shrunk(image, factor)
        found: list[Palm] = []
        for center in _tile_centers(width, height, side_px, overlap):
            if min_contrast is None or _contrast(small, center * factor, side_px * factor) > min_contrast:
                found += [_scaled(p, factor) for p in self._palm_net.palms(small, center * factor, side_px * factor)]
        return found

    def verified(self, image: Array, palms: Sequence[Palm], min_hand_px: float = MIN_HAND_PX) -> list[HandBox]:
        """The hands, of at least that size, at palms."""
        checked = [self._verify(image, palm, min_hand_px) for palm in _distinct_palms(palms)]
        return distinct_hands([hand for hand in checked if hand is not None])

    def _from_palms(self, image: Array, divisions: Sequence[int]) -> list[HandBox]:
        """Hands at palms found in tiles whose side is the image's longer side over each of the divisions."""
        return self.verified(image, self._palms(image, divisions))

    def _palms(self, image: Array, divisions: Sequence[int]) -> list[Palm]:
        return [palm for division in divisions for palm in self.palms(image, max(image.shape[:2]) / division)]

    def _from_central_box(self, image: Array) -> list[HandBox]:
        """The one hand of an image that is a crop around it."""
        size = np.array(image.shape[1::-1], np.float64)
        for share in CENTRAL_BOXES:
            box = np.concatenate([size * (1 - share), size * (1 + share)]) / 2
            pair = self._hand.best_pair(image, box, None)
            if pair.quality > CENTRAL_QUALITY:
                return [_hand_box(pair.detection, float(pair.detection.presence[0]))]
        return []

    def _verify(self, image: Array, palm: Palm, min_hand_px: float = MIN_HAND_PX) -> HandBox | None:
        box = palm.box_xyxy_px
        side = float((box[2:] - box[:2]).max())
        toward_fingers = np.array([math.sin(palm.angle_rad), -math.cos(palm.angle_rad)])
        center = (box[:2] + box[2:]) / 2 + HAND_SHIFT * side * toward_fingers
        last = self._landmark_net.predict(image, center, HAND_FROM_PALM * side, palm.angle_rad)
        for _ in range(MAX_PASSES - 1):
            if last.presence < HAND_SCORE / 2:
                return None
            before, angle = last, upright_angle(last.keypoints_px)
            center, extent = upright_extent(before.keypoints_px, angle)
            if extent < min_hand_px:
                return None
            last = self._landmark_net.predict(image, center, SECOND_CROP * extent, angle)
            distance = float(np.linalg.norm(before.keypoints_px - last.keypoints_px, axis=1).mean()) / extent
            if distance < SETTLED:
                break
        score = math.sqrt(before.presence * last.presence) * math.exp(-distance / DISAGREEMENT_SCALE)
        if score < HAND_SCORE:
            return None
        right_probability = (before.right_probability + last.right_probability) / 2
        return _hand_box(merged_landmarks(before, last, extent, right_probability), score)

    def follow(self, image: Array, keypoints_px: Array) -> HandBox | None:
        """The hand about where (21, 2) keypoints expect it, in the next frame of a film; None when it is not there.

        No palm is searched: the landmark model starts from those keypoints' square.
        """
        angle = upright_angle(keypoints_px)
        center, extent = upright_extent(keypoints_px, angle)
        side = FOLLOW_CROP * extent / HAND_FROM_PALM
        palm = center - HAND_SHIFT * side * np.array([math.sin(angle), -math.cos(angle)])
        return self._verify(image, Palm(np.concatenate([palm - side / 2, palm + side / 2]), angle, 1.0))

    def search(self, image: Array, known_px: Sequence[Array] = ()) -> list[HandBox]:
        """The hands, best first, at palms in the image and its half-size tiles; palms of hands that are known, (21, 2)
        keypoints each, are left out."""
        known = [(points[list(PALM_JOINTS)].mean(0), upright_extent(points, 0.0)[1]) for points in known_px]

        def is_new(palm: Palm) -> bool:
            center = (palm.box_xyxy_px[:2] + palm.box_xyxy_px[2:]) / 2
            return all(np.linalg.norm(center - at) > KNOWN_PALM * size for at, size in known)

        return self.verified(image, [palm for palm in self._palms(image, (1, 2)) if is_new(palm)])


def _hand_box(detection: Detections, score: float) -> HandBox:
    side: Side = "right" if detection.right_probability[0] > 0.5 else "left"
    return HandBox(tight_box(detection.keypoints_px[0]), side, score, detection)


def find_hands(image: Array, assets: str | Path) -> list[HandBox]:
    """The hands of a photo (H, W, 3) uint8 RGB, best first. Raises AssetError when the models cannot be had."""
    return shared_finder(str(assets)).find(image)


@functools.lru_cache(maxsize=1)
def shared_finder(assets: str) -> HandFinder:
    return HandFinder(assets)


def distinct_hands(found: Sequence[HandBox]) -> list[HandBox]:
    """The hands, best first, without those that are a better hand detected again, or a part of one."""
    hands: list[HandBox] = []
    for hand in sorted(found, key=lambda h: -h.score):
        if not any(is_same_or_part(hand, better) for better in hands):
            hands.append(hand)
    return hands


def is_same_or_part(hand: HandBox, better: HandBox) -> bool:
    box_xyxy, better_xyxy = hand.box_xyxy_px, better.box_xyxy_px
    if box_iou(box_xyxy, better_xyxy) >= SAME_HAND:
        return True
    size, better_px = box_xyxy[2:] - box_xyxy[:2], float((better_xyxy[2:] - better_xyxy[:2]).max())
    reach = PART_REACH * better_px
    shared = np.minimum(box_xyxy[2:], better_xyxy[2:] + reach) - np.maximum(box_xyxy[:2], better_xyxy[:2] - reach)
    inside = float(np.clip(shared, 0, None).prod() / size.prod())
    return float(size.max()) < PART_SIZE[hand.side == better.side] * better_px and inside > PART_INSIDE


def anchors() -> Array:
    """(2016, 2) centers of the SSD anchors in shares of the region, in the order of the model's outputs."""
    centers = []
    for cells, repeats in GRIDS:
        line = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(line, line, indexing="ij")
        centers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(centers)


def _tile_centers(width: int, height: int, side: float, overlap: float) -> Iterator[Array]:
    """Centers of squares of that side that cover the image, neighbors overlapping by that share or more."""
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
    """Standard deviation of the pixels of a square, every fourth one in x and y."""
    x0, y0 = np.maximum(center_px - side_px / 2, 0).astype(int)
    x1, y1 = np.ceil(center_px + side_px / 2).astype(int) + 1
    return float(image[y0:y1:4, x0:x1:4].std())


def _enlarged(hand: HandBox, factor: float) -> HandBox:
    """A hand of the shrunk image in pixels of the image."""
    seen, scale = hand.detection, np.float32(factor)
    assert seen.z_px is not None
    detection = replace(seen, keypoints_px=(seen.keypoints_px + 0.5) / scale - 0.5, z_px=seen.z_px / scale)
    return replace(hand, box_xyxy_px=tight_box(detection.keypoints_px[0]), detection=detection)


def _scaled(palm: Palm, factor: float) -> Palm:
    """A palm of the shrunk image in pixels of the image."""
    return Palm((palm.box_xyxy_px + 0.5) / factor - 0.5, palm.angle_rad, palm.score)


def _distinct_palms(palms: Sequence[Palm]) -> list[Palm]:
    """Best first, one of each group of overlapping palms."""
    distinct: list[Palm] = []
    for palm in sorted(palms, key=lambda p: -p.score):
        if all(box_iou(palm.box_xyxy_px, other.box_xyxy_px) < SAME_PALM for other in distinct):
            distinct.append(palm)
    return distinct
