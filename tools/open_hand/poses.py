"""Hand poses as anatomical angles, and the mean pose and pose basis that a MANO file carries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

POSE_SAMPLES = 256
POSE_SEED = 2025

# (flexion, abduction, twist) in degrees; joints not named rest at zero. Numbers are MANO's joints 1..15.
Angles = Mapping[int, tuple[float, float, float]]

RELAXED: Angles = {
    1: (16, 0, 0), 2: (26, 0, 0), 3: (12, 0, 0),
    4: (20, 0, 0), 5: (30, 0, 0), 6: (14, 0, 0),
    7: (24, 2, 0), 8: (30, 0, 0), 9: (15, 0, 0),
    10: (22, 1, 0), 11: (32, 0, 0), 12: (15, 0, 0),
    13: (6, 12, 0), 14: (10, 0, 0), 15: (16, 0, 0),
}  # fmt: skip
FIST: Angles = {
    1: (78, -9, 0), 2: (100, 0, 0), 3: (60, 0, 0),
    4: (80, 0, 0), 5: (100, 0, 0), 6: (60, 0, 0),
    7: (80, 3, 0), 8: (98, 0, 0), 9: (58, 0, 0),
    10: (80, 0, 0), 11: (100, 0, 0), 12: (60, 0, 0),
    13: (34, 38, -8), 14: (16, 0, 0), 15: (32, 0, 0),
}  # fmt: skip
# Standard deviation of the free variation about the relaxed-to-fist path: flexion, abduction, twist.
FREE_STD_DEG = {"base": (12.0, 6.0, 1.5), "hinge": (8.0, 0.8, 0.8), "thumb": (9.0, 8.0, 4.0)}


def axis_angles(angles: Angles, axes: Array) -> Array:
    """(15, 3) axis-angle in the rest frame; axes (16, 3, 3) has rows twist, flexion, abduction per joint.

    Twist is applied first, then flexion, then abduction, as a finger is spread at its knuckle after it is curled.
    """
    pose = np.zeros((15, 3))
    for joint, (flexion, abduction, twist) in angles.items():
        turn = np.deg2rad([twist, flexion, abduction])[:, None] * axes[joint]
        first, second, third = (Rotation.from_rotvec(v) for v in turn)
        pose[joint - 1] = (third * second * first).as_rotvec()
    return pose


def pose_basis(axes: Array) -> tuple[Array, Array, Array]:
    """hands_mean (45,), hands_components (45, 45) orthonormal rows, hands_coeffs (P, 45) of a relaxed-to-fist range."""
    rng = np.random.default_rng(POSE_SEED)
    poses = np.zeros((POSE_SAMPLES, 45))
    for n in range(POSE_SAMPLES):
        # most hands are nearly relaxed; fingers close together but not in step
        common = rng.beta(1.0, 2.5)
        free = rng.standard_normal((16, 3))
        angles = {}
        for joint in range(1, 16):
            finger, segment = divmod(joint - 1, 3)
            closure = np.clip(common + 0.12 * free[0, finger % 3] * (-1) ** finger, -0.15, 1.0)
            kind = "thumb" if finger == 4 and segment == 0 else "base" if segment == 0 else "hinge"
            center = (1.0 - closure) * np.array(RELAXED[joint]) + closure * np.array(FIST[joint])
            values = center + free[joint] * FREE_STD_DEG[kind]
            angles[joint] = (float(values[0]), float(values[1]), float(values[2]))
        poses[n] = axis_angles(angles, axes).ravel()
    # the stored mean is the relaxed hand, so that a zero pose with flat_hand_mean=False is one
    mean = axis_angles(RELAXED, axes).ravel()
    _, _, components = np.linalg.svd(poses - poses.mean(0), full_matrices=False)
    components *= np.sign(components[np.arange(45), np.abs(components).argmax(1)])[:, None]
    return mean, components, (poses - mean) @ components.T
