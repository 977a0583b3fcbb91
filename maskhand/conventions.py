"""The conventions of maskhand, defined here and nowhere else: joint orders, fingers and tips, axes, mirroring.

Everything inside maskhand uses one convention, and adapters convert into it once:

* joints: OpenPose-21 order (`OPENPOSE_21`); wrist first, then thumb, index, middle, ring, little, base to tip;
* lengths: meters; images: pixels with the center of the top-left pixel at (0, 0);
* camera axes: OpenCV (x right, y down, z forward);
* MANO pose: 16 absolute rotations (flat hand = zero), the first one the global orientation;
* MANO translation: the vector added to the model's vertices after posing (smplx convention).
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

Side = Literal["right", "left"]

NUM_JOINTS: Final = 21
NUM_MANO_JOINTS: Final = 16
NUM_VERTICES: Final = 778
NUM_FACES: Final = 1538
NUM_BETAS: Final = 10

SMALLEST_HAND_M: Final = 0.02
LARGEST_HAND_M: Final = 0.6
"""Diagonal of the box around a hand: of a child's fist, and twice a large hand's. A wrong unit is 10 times off."""

FINGERS: Final = ("thumb", "index", "middle", "ring", "little")
"""In OpenPose's order, which is also that of tips wherever they are listed alone."""

OPENPOSE_21: Final = (
    "wrist",
    *(f"{finger}_{part}" for finger in FINGERS for part in (
        ("cmc", "mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
    )),
)  # fmt: skip

FINGERTIPS: Final = (4, 8, 12, 16, 20)
"""The tips among the OpenPose-21 joints."""

UPRIGHT: Final = (OPENPOSE_21.index("wrist"), OPENPOSE_21.index("middle_mcp"))
"""The joints of which the second is straight above the first in an upright hand."""

MANO_FINGERS: Final = ("index", "middle", "little", "ring", "thumb")

MANO_16: Final = ("wrist", *(f"{finger}{k}" for finger in MANO_FINGERS for k in (1, 2, 3)))

FIRST_MANO_JOINT: Final = {finger: 1 + 3 * MANO_FINGERS.index(finger) for finger in FINGERS}
"""Finger, thumb first -> the first of its three joints among MANO's 16; the others follow it."""

BONES: Final = tuple(
    (0 if k == 0 else 1 + 4 * finger + k - 1, 1 + 4 * finger + k) for finger in range(5) for k in range(4)
)
"""(parent, child) pairs of OpenPose-21 joints: the 20 bones of the hand skeleton."""

MANO_16_PARENTS: Final = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

FINGERTIP_VERTICES: Final[dict[str, tuple[int, int, int, int, int]]] = {
    "smplx": (744, 320, 443, 554, 671),
    "freihand": (744, 320, 443, 555, 672),
    "ho3d": (744, 333, 444, 555, 672),
    "manopth": (745, 317, 444, 556, 673),
    "manopth_left": (745, 317, 445, 556, 673),
}
"""Vertex ids of the tips (thumb, index, middle, ring, little); datasets disagree by a few millimeters."""

OPENPOSE_FROM_MANO_AND_TIPS: Final = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""`openpose = mano21[OPENPOSE_FROM_MANO_AND_TIPS]`, where mano21 is MANO's 16 joints followed by the five tips."""

OPENPOSE_FROM_INTERHAND: Final = (20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16)
"""Per hand of InterHand2.6M: each finger tip to base, thumb first, the wrist last."""

INTERHAND_HANDS: Final[dict[Side, slice]] = {"right": slice(0, 21), "left": slice(21, 42)}
"""Each hand's joints among the 42 of InterHand2.6M."""

OPENPOSE_FROM_RHD: Final = (0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17)
"""Per hand of RHD: the wrist first, then each finger tip to base, thumb first."""

RHD_HANDS: Final[dict[Side, slice]] = {"left": slice(0, 21), "right": slice(21, 42)}
"""Each hand's joints among the 42 of RHD."""

JOINT_ORDERS: Final[dict[str, tuple[int, ...]]] = {
    "openpose21": tuple(range(NUM_JOINTS)),
    "mano16_tips": OPENPOSE_FROM_MANO_AND_TIPS,
    "interhand21": OPENPOSE_FROM_INTERHAND,
    "rhd21": OPENPOSE_FROM_RHD,
}
"""`openpose = joints[JOINT_ORDERS[card.joint_order]]`."""

AXES_TO_OPENCV: Final[dict[str, tuple[float, float, float]]] = {
    "opencv": (1.0, 1.0, 1.0),
    "opengl": (1.0, -1.0, -1.0),
}
"""Diagonal of the matrix that takes a dataset's camera axes to OpenCV's."""

MIRROR_AXIS_ANGLE: Final = np.array([1.0, -1.0, -1.0])
"""A rotation mirrored in the plane x = 0: its axis-angle keeps x and negates y and z."""

MIRROR_POINT: Final = np.array([-1.0, 1.0, 1.0])
"""A point mirrored in the plane x = 0."""


def openpose_joint_of_mano_joint() -> tuple[int, ...]:
    """For each of MANO's 16 joints, the OpenPose-21 joint at the same place."""
    position = {source: target for target, source in enumerate(OPENPOSE_FROM_MANO_AND_TIPS)}
    return tuple(position[j] for j in range(NUM_MANO_JOINTS))
