"""A partial prior over human hand poses: mixtures of named shapes within the joint limits; no motion-capture data.

Angles are those of `hand.anatomy`: degrees (..., 16, 3). Global orientation is sampled in `view.py`.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64
from maskhand.conventions import FINGERS, FIRST_MANO_JOINT, NUM_MANO_JOINTS
from maskhand.hand.anatomy import (
    ABDUCTION,
    DIP_OF_PIP,
    FLEXION,
    LONG_FINGERS,
    TWIST,
    anatomical_axes,
    pose_table,
    respect_limits,
    to_axis_angle,
)
from maskhand.synth.collisions import overlap_m

# shares of the mixture: blend of two shapes, one shape per finger, common curl, uniform within limits
MIXTURE = (0.45, 0.22, 0.18, 0.15)
# soft fingers that press on each other flatten by a few millimeters
MAX_OVERLAP_M = 0.0036
# drawn at once when a few poses are missing
REDRAW = 4


def sample_poses(rng: np.random.Generator, count: int) -> Array64:
    """(count, 16, 3) angles in degrees within the limits, drawn from the mixture.

    Poses in which fingers pass through each other or the palm are drawn again within their part of the mixture.
    """
    kind = rng.choice(len(MIXTURE), count, p=MIXTURE)
    poses = np.zeros((count, NUM_MANO_JOINTS, 3))
    for part, draw in enumerate((_blend, _per_finger, _curl, _uniform)):
        wanted = np.flatnonzero(kind == part)
        while len(wanted):
            candidates = respect_limits(draw(rng, max(len(wanted), REDRAW)))
            rotations = Rotation.from_rotvec(to_axis_angle(candidates).reshape(-1, 3)).as_matrix()
            free = candidates[overlap_m(rotations.reshape(-1, NUM_MANO_JOINTS, 3, 3)) < MAX_OVERLAP_M][: len(wanted)]
            poses[wanted[: len(free)]] = free
            wanted = wanted[len(free) :]
    return poses


def _blend(rng: np.random.Generator, count: int) -> Array64:
    """Between two named shapes, mostly near one of them."""
    table = pose_table().angles_deg
    a, b = rng.integers(len(table), size=(2, count))
    share = rng.beta(0.5, 0.9, count)[:, None, None] * 0.7
    return table[a] * (1 - share) + table[b] * share + jitter(rng, count, rng.uniform(1, 8, (count, 1, 1)))


def _per_finger(rng: np.random.Generator, count: int) -> Array64:
    """Each finger from its own named shape; neighbors often move together."""
    table = pose_table().angles_deg
    out = np.zeros((count, NUM_MANO_JOINTS, 3))
    shape = rng.integers(len(table), size=count)
    for finger in (*FINGERS[1:], "thumb"):
        shape = np.where(rng.random(count) < 0.45, rng.integers(len(table), size=count), shape)
        joints = slice(FIRST_MANO_JOINT[finger], FIRST_MANO_JOINT[finger] + 3)
        out[:, joints] = table[shape][:, joints]
    return _keep_fingers_apart(out + jitter(rng, count, np.full((count, 1, 1), 5.0)))


def _curl(rng: np.random.Generator, count: int) -> Array64:
    """Flat to fist by one common curl with individual deviations, spread by one common spread."""
    table = pose_table()
    flat, fist, spread = (table.shape(name) for name in ("flat", "fist", "spread"))
    common = rng.beta(0.9, 1.3, (count, 1))
    curl = np.clip(common + rng.normal(0, 0.13, (count, 5)), -0.08, 1.05)
    per_joint = np.concatenate([np.zeros((count, 1)), np.repeat(curl, 3, axis=1)], axis=1)[..., None]
    open_hand = flat + rng.random((count, 1, 1)) * (spread - flat)
    return _keep_fingers_apart(
        open_hand * (1 - per_joint) + fist * per_joint + jitter(rng, count, np.full((count, 1, 1), 4.0))
    )


def _uniform(rng: np.random.Generator, count: int) -> Array64:
    """Anywhere within the limits, DIP following PIP."""
    limits = pose_table().limits_deg
    out = rng.uniform(limits[..., 0], limits[..., 1], (count, NUM_MANO_JOINTS, 3))
    # a free draw of hinge twist and thumb opposition would mostly be poses nobody takes
    out[:, :, TWIST] *= 0.4
    for first in LONG_FINGERS:
        out[:, first, ABDUCTION] *= 0.6
        pip = out[:, first + 1, FLEXION]
        out[:, first + 2, FLEXION] = DIP_OF_PIP * pip + rng.normal(0, 9, count)
    return _keep_fingers_apart(out)


def jitter(rng: np.random.Generator, count: int, scale_deg: Array64) -> Array64:
    """(count, 16, 3) deviations of about `scale_deg`: full on flexion, less on spread, DIP tied to PIP, next to none
    where a hinge cannot go.
    """
    noise = rng.standard_normal((count, NUM_MANO_JOINTS, 3)) * scale_deg
    noise[:, :, ABDUCTION] *= 0.5
    noise[:, :, TWIST] *= 0.25
    noise[:, 0] = 0
    for first in LONG_FINGERS:
        noise[:, first + 1 : first + 3, ABDUCTION:] = 0
        noise[:, first + 2, FLEXION] = DIP_OF_PIP * noise[:, first + 1, FLEXION] + 0.4 * noise[:, first + 2, FLEXION]
    return noise


def _keep_fingers_apart(angles_deg: Array64) -> Array64:
    """Spread neighboring fingers that would lie through each other: similar curl, crossing headings."""
    axes = anatomical_axes()
    heading = {f: np.rad2deg(np.arctan2(axes[f, TWIST, 2], -axes[f, TWIST, 0])) for f in LONG_FINGERS}
    out = angles_deg.copy()
    for a, b in ((4, 1), (4, 10), (10, 7)):  # outwards from the middle finger, which stays
        side = 1 if b == 1 else -1
        curl = np.abs(out[:, a, FLEXION] - out[:, b, FLEXION]) + 0.5 * np.abs(
            out[:, a + 1, FLEXION] - out[:, b + 1, FLEXION]
        )
        gap = side * ((heading[b] + out[:, b, ABDUCTION]) - (heading[a] + out[:, a, ABDUCTION]))
        missing = np.where(curl < 55, np.maximum(0.5 - gap, 0), 0)
        out[:, b, ABDUCTION] += side * missing
    return out
