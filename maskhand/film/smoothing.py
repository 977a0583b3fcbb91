"""Smoothing of a hand's motion through a film, weighted by the confidence of its frames.

The shape is averaged over the film. The sixteen rotations are smoothed individually, and the position of the hand's
center as direction from the camera and distance in hand sizes. So the smoothed hand stays aligned with the image, while
the distance, which is ambiguous with the hand's size, is stabilized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array, Array64
from maskhand.conventions import (
    BONES,
    FINGERTIPS,
    MIRROR_AXIS_ANGLE,
    MIRROR_POINT,
    NUM_BETAS,
    NUM_MANO_JOINTS,
    openpose_joint_of_mano_joint,
)
from maskhand.film.filters import OneEuro, OneEuroRotations, smoothed_robustly, smoothed_rotations
from maskhand.film.options import Smoothing
from maskhand.predict.records import PredictedHand

REFERENCE_MM = 7.0
"""Expected joint error at which the weight is 1; the weight is proportional to the inverse square of the error."""
LEAST_WEIGHT, MOST_WEIGHT = 0.04, 4.0
ORIENTATION_HZ, FINGERS_HZ, DIRECTION_HZ, DISTANCE_HZ = 2.5, 2.5, 4.0, 1.0
"""Cutoffs of the smoother over the whole film; tuned on rendered films."""
CAUSAL_ORIENTATION_HZ, CAUSAL_FINGERS_HZ, CAUSAL_DIRECTION_HZ, CAUSAL_DISTANCE_HZ = 1.5, 1.5, 3.0, 0.5
CAUSAL_PER_TURN, CAUSAL_PER_DIRECTION, CAUSAL_PER_DISTANCE = 2.0, 10.0, 1.0
"""Minimum cutoffs of the One-Euro filters, and their increase in Hz per radian per second, per focal length per second,
and per e-folding of the distance per second."""

_SIZE_BONES = np.array([bone for bone in BONES if bone[1] not in FINGERTIPS])
_FINGER_CHILD = np.array(openpose_joint_of_mano_joint()[1:]) + 1


@dataclass(frozen=True)
class Motion:
    """One hand at T times, in right-hand form (a left hand is mirrored at the plane x = 0 of its camera)."""

    times_s: Array64
    """(T,) increasing."""
    rotmats: Array64
    """(T, 16, 3, 3) absolute MANO rotations, camera axes."""
    betas: Array64
    """(T, 10)."""
    direction: Array64
    """(T, 2) x / z and y / z of the mean of the 21 joints."""
    distance: Array64
    """(T,) logarithm of its depth in hand sizes (`hand_size_m`)."""
    joint_weight: Array64
    """(T, 16) weights of the rotations; 0 where the hand was not seen."""
    weight: Array64
    """(T,) weights of the other quantities."""

    def __len__(self) -> int:
        return len(self.times_s)


def motion_of(hands: Sequence[PredictedHand | None], times_s: Array) -> Motion:
    """The motion of a hand predicted in some of T frames (None in the others); all hands have the same side."""
    count = len(hands)
    rotmats = np.tile(np.eye(3), (count, NUM_MANO_JOINTS, 1, 1))
    betas, direction, distance = np.zeros((count, NUM_BETAS)), np.zeros((count, 2)), np.zeros(count)
    joint_weight, weight = np.zeros((count, NUM_MANO_JOINTS)), np.zeros(count)
    for k, hand in enumerate(hands):
        if hand is None:
            continue
        left = hand.side == "left"
        rotmats[k] = Rotation.from_rotvec(hand.pose_aa * (MIRROR_AXIS_ANGLE if left else 1.0)).as_matrix()
        betas[k] = hand.betas
        middle = hand.joints_cam_m.mean(0) * (MIRROR_POINT if left else 1.0)
        depth = max(float(middle[2]), 1e-6)
        direction[k], distance[k] = middle[:2] / depth, np.log(depth / float(hand_size_m(hand.joints_cam_m)))
        error_mm = np.nan_to_num(hand.joint_error_mm, nan=REFERENCE_MM)
        mean = np.array([error_mm.mean(), *error_mm[_FINGER_CHILD]])
        joint_weight[k] = np.clip((REFERENCE_MM / mean) ** 2, LEAST_WEIGHT, MOST_WEIGHT)
        weight[k] = joint_weight[k, 0]
    return Motion(np.asarray(times_s, np.float64), rotmats, betas, direction, distance, joint_weight, weight)


def hand_size_m(joints_m: Array) -> Array64:
    """(..., 21, 3) -> (...,) sum of the lengths of the bones that do not end in a tip; independent of the pose."""
    start, end = _SIZE_BONES.T
    return np.asarray(np.linalg.norm(joints_m[..., end, :] - joints_m[..., start, :], axis=-1).sum(-1))


def smooth(motion: Motion, smoothing: Smoothing) -> Motion:
    """The smoothed motion. In frames where the hand was not seen, `whole` interpolates and `causal` repeats the last
    hand."""
    if smoothing == "whole":
        return _smooth_whole(motion)
    return _smooth_causally(motion) if smoothing == "causal" else motion


def _smooth_whole(motion: Motion) -> Motion:
    times, weight = motion.times_s, motion.weight
    rotmats = np.empty_like(motion.rotmats)
    for joint in range(NUM_MANO_JOINTS):
        cutoff = FINGERS_HZ if joint else ORIENTATION_HZ
        rotmats[:, joint] = smoothed_rotations(motion.rotmats[:, joint], motion.joint_weight[:, joint], times, cutoff)
    betas = np.average(motion.betas, axis=0, weights=weight)
    return Motion(
        times,
        rotmats,
        np.tile(betas, (len(motion), 1)),
        smoothed_robustly(motion.direction, weight, times, DIRECTION_HZ),
        smoothed_robustly(motion.distance[:, None], weight, times, DISTANCE_HZ)[:, 0],
        motion.joint_weight,
        weight,
    )


def _smooth_causally(motion: Motion) -> Motion:
    least = np.full(NUM_MANO_JOINTS, CAUSAL_FINGERS_HZ)
    least[0] = CAUSAL_ORIENTATION_HZ
    turns = OneEuroRotations(least, CAUSAL_PER_TURN)
    direction = OneEuro(CAUSAL_DIRECTION_HZ, CAUSAL_PER_DIRECTION)
    distance = OneEuro(CAUSAL_DISTANCE_HZ, CAUSAL_PER_DISTANCE)
    seen = np.flatnonzero(motion.weight > 0)
    before = np.maximum.accumulate(np.where(motion.weight > 0, np.arange(len(motion)), -1))
    rotmats, places, betas = [], [], []
    total, sum_betas = 0.0, np.zeros(NUM_BETAS)
    for k in seen:
        time_s, weight = float(motion.times_s[k]), float(motion.weight[k])
        rotmats.append(turns(motion.rotmats[k], time_s, motion.joint_weight[k]))
        places.append(
            np.append(
                direction(motion.direction[k], time_s, weight), distance(motion.distance[k : k + 1], time_s, weight)
            )
        )
        total, sum_betas = total + weight, sum_betas + weight * motion.betas[k]
        betas.append(sum_betas / total)
    rows = np.searchsorted(seen, before)
    place = np.array(places)[rows]
    return Motion(
        motion.times_s,
        np.array(rotmats)[rows],
        np.array(betas)[rows],
        place[:, :2],
        place[:, 2],
        motion.joint_weight,
        motion.weight,
    )
