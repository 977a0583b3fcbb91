"""The poses a hand can take: anatomical angles, joint limits, the coupling of DIP and PIP, named hand shapes.

Angles are degrees in an array (..., 16, 3): joints in MANO's order, columns flexion, abduction, twist about the
anatomical axes of `open_hand/anatomy.json`. Row 0 (the wrist) is always zero. The named shapes and limits are data, in
`hand_shapes.yaml`. The axes were measured on the open hand; MANO's own template rests in the same flat pose and frame,
so they serve a licensed model file as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64
from maskhand.conventions import FINGERS, FIRST_MANO_JOINT, MANO_16, NUM_MANO_JOINTS
from maskhand.hand.model_file import OPEN_HAND_FOLDER

TABLE = Path(__file__).with_name("hand_shapes.yaml")
FLEXION, ABDUCTION, TWIST = 0, 1, 2
LONG_FINGERS = tuple(FIRST_MANO_JOINT[finger] for finger in FINGERS if finger != "thumb")
"""MANO's joint index of each long finger's MCP; PIP and DIP follow it."""

# DIP follows PIP, as the deep flexor and the retinacular ligaments tie them (Rijpkema and Girard 1991)
DIP_OF_PIP = 2 / 3
DIP_SLACK_DEG = (-28.0, 32.0)


@dataclass(frozen=True)
class PoseTable:
    """The named shapes and the limits of `hand_shapes.yaml`."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    """`grasp`, `alphabet`, `digit` or `gesture`, one per name."""
    angles_deg: Array64
    """(S, 16, 3)"""
    limits_deg: Array64
    """(16, 3, 2) lowest and highest angle."""

    def shape(self, name: str) -> Array64:
        """(16, 3) degrees of a named shape."""
        if name not in self.names:
            raise KeyError(f"No hand shape {name!r} in {TABLE.name}; it has {', '.join(self.names)}.")
        return self.angles_deg[self.names.index(name)]


@cache
def pose_table(path: Path = TABLE) -> PoseTable:
    """The checked table. Raises ValueError naming the shape and joint that break a limit or a format."""
    raw = yaml.safe_load(path.read_text())
    limits = np.zeros((NUM_MANO_JOINTS, 3, 2))
    for joint, columns in raw["limits"].items():
        for name in [j for j in MANO_16[1:] if joint in (j, f"finger{j[-1]}") and (joint == j or "thumb" not in j)]:
            limits[MANO_16.index(name)] = columns
    names, groups, angles = [], [], []
    for group, shapes in raw["shapes"].items():
        for name, fingers in shapes.items():
            names.append(str(name))
            groups.append(group)
            angles.append(_angles(f"{path.name}: {name}", fingers))
    table = PoseTable(tuple(names), tuple(groups), np.stack(angles), limits)
    outside = (table.angles_deg < limits[..., 0] - 1e-9) | (table.angles_deg > limits[..., 1] + 1e-9)
    if outside.any():
        s, j, c = np.argwhere(outside)[0]
        raise ValueError(
            f"{path.name}: {names[s]}: {MANO_16[j]} column {c} is {table.angles_deg[s, j, c]}, "
            f"outside its limits {limits[j, c].tolist()}; change the shape or the limits."
        )
    return table


def _angles(where: str, fingers: dict[str, Any]) -> Array64:
    """One table row: fingers are [spread, MCP, PIP, DIP]; the thumb [CMC flexion, abduction, twist, MCP, IP]."""
    angles = np.zeros((NUM_MANO_JOINTS, 3))
    if set(fingers) != set(FINGERS):
        raise ValueError(f"{where}: expected exactly the fingers {', '.join(FINGERS)}, found {', '.join(fingers)}.")
    for finger, values in fingers.items():
        first = FIRST_MANO_JOINT[finger]
        if len(values) != (5 if finger == "thumb" else 4):
            raise ValueError(f"{where}: {finger} has {len(values)} angles; the file's header lists what is expected.")
        if finger == "thumb":
            angles[first] = values[:3]
            angles[[first + 1, first + 2], FLEXION] = values[3:]
        else:
            angles[first, ABDUCTION] = values[0]
            angles[first : first + 3, FLEXION] = values[1:]
    return angles


@cache
def anatomical_axes() -> Array64:
    """(16, 3, 3) rows flexion, abduction, twist: unit axes of each joint in the right hand's rest frame; wrist zero."""
    record = json.loads((OPEN_HAND_FOLDER / "anatomy.json").read_text())
    axes = np.zeros((NUM_MANO_JOINTS, 3, 3))
    for name, joint in record["joints"].items():
        axes[MANO_16.index(name)] = [joint["flexion"], joint["abduction"], joint["twist"]]
    return axes


def to_axis_angle(angles_deg: Array64) -> Array64:
    """(..., 16, 3) degrees -> (..., 16, 3) absolute axis-angle in radians, MANO convention; row 0 stays zero.

    R = R(abduction) R(flexion) R(twist), the order of `anatomy.json`.
    """
    vectors = np.deg2rad(angles_deg)[..., None] * anatomical_axes()
    flexion, abduction, twist = (Rotation.from_rotvec(vectors[..., k, :].reshape(-1, 3)) for k in range(3))
    return (abduction * flexion * twist).as_rotvec().reshape(angles_deg.shape)


def respect_limits(angles_deg: Array64) -> Array64:
    """Clip angles to the joint limits and to the range that PIP leaves DIP."""
    limits = pose_table().limits_deg
    out = np.clip(angles_deg, limits[..., 0], limits[..., 1])
    for first in LONG_FINGERS:
        follow = DIP_OF_PIP * out[..., first + 1, FLEXION]
        low, high = follow + DIP_SLACK_DEG[0], follow + DIP_SLACK_DEG[1]
        out[..., first + 2, FLEXION] = np.clip(out[..., first + 2, FLEXION], low, high)
    return np.clip(out, limits[..., 0], limits[..., 1])
