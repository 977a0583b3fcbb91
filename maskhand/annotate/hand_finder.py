"""Hand finder for full photos: palm detection (Apache-2.0 SSD, 2 MB) at several scales, each palm verified.

Palms are searched in the whole image and, unless it is small, in overlapping half-size tiles. A palm has position, size
and rotation. The landmark model runs there, is re-centered on the hand that it found, and runs again until two passes
agree. False detections fail this verification: their presence is low, or the passes do not converge. The side is
determined by the landmark model.

If no palm is found, the image may already be the crop of a hand (as in FreiHAND); the last attempt uses smaller tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.annotate.litert import SECOND_CROP, LitertHand, merged_landmarks
from maskhand.annotate.palms import Palm, PalmNet, distinct_palms
from maskhand.annotate.upright_crop import shrunk, upright_angle, upright_extent
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.fetched_models import hand_models
from maskhand.geometry2d import box_iou, tight_box

PALM_JOINTS = (0, 5, 9, 13, 17)
"""Wrist and knuckles, OpenPose order: the palm of a hand with known keypoints."""
KNOWN_PALM = 0.35
"""A palm closer than this to that of a known hand, in longer sides of the hand's box, is the same palm."""
HAND_FROM_PALM = 2.6
"""Side of the region around the hand in palm sides; its center lies half a palm toward the fingers (MediaPipe)."""
HAND_SHIFT = 0.5
FOLLOW_CROP = 2.0
"""Side of the first crop in a film's next frame, in longer sides of the previous hand; differs from `SECOND_CROP`."""
HAND_SCORE = 0.6
DISAGREEMENT_SCALE = 0.25
"""Scale of the disagreement between two passes in hand sizes; larger than in `litert`, for interlocked hands."""
SETTLED, MAX_PASSES = 0.06, 4
"""Iteration ends when two passes disagree by less than this, or after this number of passes."""
CENTRAL_BOXES = (0.5, 0.75)
"""Fractions of the image's size taken as the hand's box when no palm was found."""
CENTRAL_QUALITY = 0.25
"""Minimum `PassPair.quality` of such a hand: 7 of 8 FreiHAND crops reach it, no full photo exceeded 0.16."""
WHOLE_PX = 288
"""An image up to this length is not searched in tiles if a hand was found in the whole image, which the palm model sees
at two thirds of its resolution or more. In 200 rendered images of 224 px, tiles found no further hand, and five parts
of a hand as second hands."""
LONGEST_PX = 4096
"""A longer image is searched in a copy shrunk to this length; the palm model's input is smaller anyway."""
MIN_HAND_PX = 24
SAME_HAND = 0.4
"""Intersection over union above which two detections are one."""
PART_SIZE: Mapping[bool, float] = {True: 0.65, False: 0.4}
PART_INSIDE, PART_REACH = 0.9, 0.25
"""A detection is a part of a better one if its longer side is below PART_SIZE of the other's (key: same side or not)
and more than PART_INSIDE of its box lies in the other's box, enlarged by PART_REACH of its longer side (a finger
detected as a hand is often not covered by the hand's landmarks). Bent fingers detected as a hand have the hand's side.
The limit is smaller for different sides: a fist, half as long as an open hand, may be the person's other hand."""


class HandFinder:
    """Finds hands in photos with the palm and landmark models."""

    def __init__(self, assets: str | Path) -> None:
        """Load the models from the assets folder, downloading them if missing; raises AssetError."""
        models = hand_models(assets)
        self.palm_net, self._hand = PalmNet(models.palm), LitertHand(assets)
        self._landmark_net = self._hand.net

    def find(self, image: Array, max_hands: int = 10) -> list[HandBox]:
        """The hands of an image (H, W, 3) uint8 RGB, best first; empty if there are none."""
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

    def verified(self, image: Array, palms: Sequence[Palm], min_hand_px: float = MIN_HAND_PX) -> list[HandBox]:
        """The distinct hands verified at the palms, of at least `min_hand_px`."""
        checked = [self._verify(image, palm, min_hand_px) for palm in distinct_palms(palms)]
        return distinct_hands([hand for hand in checked if hand is not None])

    def _from_palms(self, image: Array, divisions: Sequence[int]) -> list[HandBox]:
        """Hands at palms found in tiles; their side is the image's longer side divided by each of the divisions."""
        return self.verified(image, self._palms(image, divisions))

    def _palms(self, image: Array, divisions: Sequence[int]) -> list[Palm]:
        return [
            palm for division in divisions for palm in self.palm_net.in_tiles(image, max(image.shape[:2]) / division)
        ]

    def _from_central_box(self, image: Array) -> list[HandBox]:
        """The hand of an image that is a crop around it, if any."""
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
        """The hand near the expected keypoints (21, 2), in the next frame of a film; None if it is not there.

        There is no palm search: the landmark model starts from the square of these keypoints.
        """
        angle = upright_angle(keypoints_px)
        center, extent = upright_extent(keypoints_px, angle)
        side = FOLLOW_CROP * extent / HAND_FROM_PALM
        palm = center - HAND_SHIFT * side * np.array([math.sin(angle), -math.cos(angle)])
        return self._verify(image, Palm(np.concatenate([palm - side / 2, palm + side / 2]), angle, 1.0))

    def search(self, image: Array, known_px: Sequence[Array] = ()) -> list[HandBox]:
        """The hands, best first, at palms in the image and its half-size tiles, except palms of known hands (keypoints
        (21, 2) each)."""
        known = [(points[list(PALM_JOINTS)].mean(0), upright_extent(points, 0.0)[1]) for points in known_px]

        def is_new(palm: Palm) -> bool:
            center = (palm.box_xyxy_px[:2] + palm.box_xyxy_px[2:]) / 2
            return all(np.linalg.norm(center - at) > KNOWN_PALM * size for at, size in known)

        return self.verified(image, [palm for palm in self._palms(image, (1, 2)) if is_new(palm)])


def _hand_box(detection: Detections, score: float) -> HandBox:
    side: Side = "right" if detection.right_probability[0] > 0.5 else "left"
    return HandBox(tight_box(detection.keypoints_px[0]), side, score, detection)


def find_hands(image: Array, assets: str | Path) -> list[HandBox]:
    """The hands of a photo (H, W, 3) uint8 RGB, best first. Raises AssetError if the models are not available."""
    return shared_finder(str(assets)).find(image)


@functools.lru_cache(maxsize=1)
def shared_finder(assets: str) -> HandFinder:
    return HandFinder(assets)


def distinct_hands(found: Sequence[HandBox]) -> list[HandBox]:
    """The hands, best first, without duplicates and parts of better hands."""
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


def _enlarged(hand: HandBox, factor: float) -> HandBox:
    """A hand of the shrunk image, in pixels of the original image."""
    seen, scale = hand.detection, np.float32(factor)
    assert seen.z_px is not None
    detection = replace(seen, keypoints_px=(seen.keypoints_px + 0.5) / scale - 0.5, z_px=seen.z_px / scale)
    return replace(hand, box_xyxy_px=tight_box(detection.keypoints_px[0]), detection=detection)
