"""Rejection of impossible poses: whether fingers pass through each other or the palm, by a capsule per bone."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from maskhand.arrays import Array64
from maskhand.conventions import FINGERTIP_VERTICES, FIRST_MANO_JOINT, MANO_16_PARENTS
from maskhand.hand.model_file import default_hand_path, load_hand_model

# half thickness of the flesh around each bone of an adult hand, meters: thumb, index, middle, ring, little
FINGER_RADII_M = (
    (0.0110, 0.0084, 0.0070),
    (0.0077, 0.0069, 0.0058),
    (0.0077, 0.0069, 0.0058),
    (0.0073, 0.0065, 0.0056),
    (0.0065, 0.0056, 0.0049),
)
PALM_RADIUS_M = 0.0097
SAMPLES_PER_BONE = 6
# the last bone is followed to the tip's surface, where a capsule must end one radius earlier
BONE_SHARES = (0.06, 0.94)
LAST_BONE_SHARES = (0.06, 0.72)
_FIRST_JOINT = tuple(FIRST_MANO_JOINT.values())


@cache
def _capsules() -> tuple[NDArray[np.int64], Array64, NDArray[np.int64]]:
    """Bones (start, end) as rows of joints16 + tips, their radii, and the pairs that must not meet."""
    bones, radii = [], []
    for finger, first in enumerate(_FIRST_JOINT):
        for k in range(3):
            bones.append((first + k, first + k + 1 if k < 2 else 16 + finger))
            radii.append(FINGER_RADII_M[finger][k])
    for first in _FIRST_JOINT[1:]:
        bones.append((0, first))
        radii.append(PALM_RADIUS_M)
    pairs = []
    for a in range(len(bones)):
        for b in range(a):
            palm, same = a >= 15, b < 15 and a // 3 == b // 3
            # bones that share flesh: the palm's own, and first phalanges with the palm or with each other
            joined = b % 3 == 0 and (palm or a % 3 == 0)
            if not same and not joined and not (palm and b >= 15):
                pairs.append((a, b))
    return np.array(bones), np.array(radii), np.array(pairs)


@cache
def _rest_points() -> Array64:
    """(21, 3) joints and fingertips of the mean hand at rest."""
    model = load_hand_model(default_hand_path("right"))
    return np.concatenate(
        [model.j_regressor @ model.v_template_m, model.v_template_m[list(FINGERTIP_VERTICES["smplx"])]]
    )


def posed_points(rotations: Array64) -> Array64:
    """(N, 16, 3, 3) rotations of the mean hand -> (N, 21, 3): MANO's 16 joints, then the tips from thumb to little."""
    rest = _rest_points()
    count = len(rotations)
    turn, at = np.zeros((count, 16, 3, 3)), np.zeros((count, 21, 3))
    for j, parent in enumerate(MANO_16_PARENTS):
        if parent < 0:
            turn[:, j], at[:, j] = rotations[:, j], rest[j]
            continue
        turn[:, j] = turn[:, parent] @ rotations[:, j]
        at[:, j] = at[:, parent] + turn[:, parent] @ (rest[j] - rest[parent])
    for finger, first in enumerate(_FIRST_JOINT):
        at[:, 16 + finger] = at[:, first + 2] + turn[:, first + 2] @ (rest[16 + finger] - rest[first + 2])
    return at


def overlap_m(rotations: Array64) -> Array64:
    """(N,) depth by which the two worst capsules of each pose overlap; 0 when none touch."""
    bones, radii, pairs = _capsules()
    points = posed_points(rotations)
    ends = np.where(bones[:, 1:] >= 16, LAST_BONE_SHARES, BONE_SHARES)
    share = np.linspace(ends[:, 0], ends[:, 1], SAMPLES_PER_BONE, axis=1)[..., None]
    along = points[:, bones[:, 0], None] * (1 - share) + points[:, bones[:, 1], None] * share
    a, b = along[:, pairs[:, 0]], along[:, pairs[:, 1]]
    # |a - b|^2 expanded, so that no (N, pairs, samples, samples, 3) array is built
    squared = (a**2).sum(-1)[..., :, None] + (b**2).sum(-1)[..., None, :] - 2 * a @ b.swapaxes(-1, -2)
    distance = np.sqrt(np.maximum(squared.min((-1, -2)), 0))
    return np.asarray(np.maximum(radii[pairs[:, 0]] + radii[pairs[:, 1]] - distance, 0).max(1))
