"""A partial prior over human hand poses: named shapes, joint limits, couplings; no motion-capture data.

Angles are degrees in an array (..., 16, 3): joints in MANO's order, columns flexion, abduction, twist about the
anatomical axes of `hand/open_hand/anatomy.json`. Row 0 (the wrist) is always zero; global orientation is sampled in
`view.py`. The named shapes and limits are data, in `hand_shapes.yaml`. The axes were measured on the open hand; MANO's
own template rests in the same flat pose and frame, so they serve a licensed model file as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.conventions import MANO_16, NUM_MANO_JOINTS
from maskhand.hand.model_file import OPEN_HAND_FOLDER
from maskhand.synth.collisions import overlap_m

Array = NDArray[np.float64]

TABLE = Path(__file__).with_name("hand_shapes.yaml")
FLEXION, ABDUCTION, TWIST = 0, 1, 2
FINGERS = ("index", "middle", "little", "ring", "thumb")
_FIRST = {finger: 1 + 3 * k for k, finger in enumerate(FINGERS)}
_LONG = tuple(_FIRST[f] for f in ("index", "middle", "ring", "little"))

# DIP follows PIP, as the deep flexor and the retinacular ligaments tie them (Rijpkema and Girard 1991)
DIP_OF_PIP = 2 / 3
DIP_SLACK_DEG = (-28.0, 32.0)
# shares of the mixture: blend of two shapes, one shape per finger, common curl, uniform within limits
MIXTURE = (0.45, 0.22, 0.18, 0.15)
# soft fingers that press on each other flatten by a few millimetres
MAX_OVERLAP_M = 0.0036
# drawn at once when a few poses are missing
REDRAW = 4


@dataclass(frozen=True)
class PoseTable:
    """The named shapes and the limits of `hand_shapes.yaml`."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    """`grasp`, `alphabet`, `digit` or `gesture`, one per name."""
    angles_deg: Array
    """(S, 16, 3)"""
    limits_deg: Array
    """(16, 3, 2) lowest and highest angle."""

    def shape(self, name: str) -> Array:
        """(16, 3) degrees of a named shape."""
        if name not in self.names:
            raise KeyError(f"No hand shape {name!r} in {TABLE.name}; it has {', '.join(self.names)}.")
        return self.angles_deg[self.names.index(name)]


@cache
def pose_table(path: Path = TABLE) -> PoseTable:
    """Read and check the table. Raises ValueError naming the shape and joint that break a limit or a format."""
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


def _angles(where: str, fingers: dict[str, Any]) -> Array:
    """One table row: fingers are [spread, MCP, PIP, DIP]; the thumb [CMC flexion, abduction, twist, MCP, IP]."""
    angles = np.zeros((NUM_MANO_JOINTS, 3))
    if set(fingers) != set(FINGERS):
        raise ValueError(f"{where}: expected exactly the fingers {', '.join(FINGERS)}, found {', '.join(fingers)}.")
    for finger, values in fingers.items():
        first = _FIRST[finger]
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
def anatomical_axes() -> Array:
    """(16, 3, 3) rows flexion, abduction, twist: unit axes of each joint in the right hand's rest frame; wrist zero."""
    record = json.loads((OPEN_HAND_FOLDER / "anatomy.json").read_text())
    axes = np.zeros((NUM_MANO_JOINTS, 3, 3))
    for name, joint in record["joints"].items():
        axes[MANO_16.index(name)] = [joint["flexion"], joint["abduction"], joint["twist"]]
    return axes


def to_axis_angle(angles_deg: Array) -> Array:
    """(..., 16, 3) degrees -> (..., 16, 3) absolute axis-angle in radians, MANO convention; row 0 stays zero.

    R = R(abduction) R(flexion) R(twist), the order of `anatomy.json`.
    """
    turns = np.deg2rad(angles_deg)[..., None] * anatomical_axes()
    flexion, abduction, twist = (Rotation.from_rotvec(turns[..., k, :].reshape(-1, 3)) for k in range(3))
    return (abduction * flexion * twist).as_rotvec().reshape(angles_deg.shape)


def respect_limits(angles_deg: Array) -> Array:
    """Clip to the joint limits and to what PIP allows DIP."""
    limits = pose_table().limits_deg
    out = np.clip(angles_deg, limits[..., 0], limits[..., 1])
    for first in _LONG:
        follow = DIP_OF_PIP * out[..., first + 1, FLEXION]
        low, high = follow + DIP_SLACK_DEG[0], follow + DIP_SLACK_DEG[1]
        out[..., first + 2, FLEXION] = np.clip(out[..., first + 2, FLEXION], low, high)
    return np.clip(out, limits[..., 0], limits[..., 1])


def sample_poses(rng: np.random.Generator, count: int) -> Array:
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


def _blend(rng: np.random.Generator, count: int) -> Array:
    """Between two named shapes, mostly near one of them."""
    table = pose_table().angles_deg
    a, b = rng.integers(len(table), size=(2, count))
    share = rng.beta(0.5, 0.9, count)[:, None, None] * 0.7
    return table[a] * (1 - share) + table[b] * share + _jitter(rng, count, rng.uniform(1, 8, (count, 1, 1)))


def _per_finger(rng: np.random.Generator, count: int) -> Array:
    """Each finger from a named shape of its own; neighbours often move together."""
    table = pose_table().angles_deg
    out = np.zeros((count, NUM_MANO_JOINTS, 3))
    shape = rng.integers(len(table), size=count)
    for finger in ("index", "middle", "ring", "little", "thumb"):
        shape = np.where(rng.random(count) < 0.45, rng.integers(len(table), size=count), shape)
        joints = slice(_FIRST[finger], _FIRST[finger] + 3)
        out[:, joints] = table[shape][:, joints]
    return _keep_fingers_apart(out + _jitter(rng, count, np.full((count, 1, 1), 5.0)))


def _curl(rng: np.random.Generator, count: int) -> Array:
    """Flat to fist by one common curl with individual deviations, spread by one common spread."""
    table = pose_table()
    flat, fist, spread = (table.shape(name) for name in ("flat", "fist", "spread"))
    common = rng.beta(0.9, 1.3, (count, 1))
    curl = np.clip(common + rng.normal(0, 0.13, (count, 5)), -0.08, 1.05)
    per_joint = np.concatenate([np.zeros((count, 1)), np.repeat(curl, 3, axis=1)], axis=1)[..., None]
    open_hand = flat + rng.random((count, 1, 1)) * (spread - flat)
    return _keep_fingers_apart(
        open_hand * (1 - per_joint) + fist * per_joint + _jitter(rng, count, np.full((count, 1, 1), 4.0))
    )


def _uniform(rng: np.random.Generator, count: int) -> Array:
    """Anywhere within the limits, DIP following PIP."""
    limits = pose_table().limits_deg
    out = rng.uniform(limits[..., 0], limits[..., 1], (count, NUM_MANO_JOINTS, 3))
    # a free draw of hinge twist and thumb opposition would mostly be poses nobody takes
    out[:, :, TWIST] *= 0.4
    for first in _LONG:
        out[:, first, ABDUCTION] *= 0.6
        pip = out[:, first + 1, FLEXION]
        out[:, first + 2, FLEXION] = DIP_OF_PIP * pip + rng.normal(0, 9, count)
    return _keep_fingers_apart(out)


def _jitter(rng: np.random.Generator, count: int, scale_deg: Array) -> Array:
    """Deviations: full on flexion, less on spread, DIP tied to PIP, next to none where a hinge cannot go."""
    noise = rng.standard_normal((count, NUM_MANO_JOINTS, 3)) * scale_deg
    noise[:, :, ABDUCTION] *= 0.5
    noise[:, :, TWIST] *= 0.25
    noise[:, 0] = 0
    for first in _LONG:
        noise[:, first + 1 : first + 3, ABDUCTION:] = 0
        noise[:, first + 2, FLEXION] = DIP_OF_PIP * noise[:, first + 1, FLEXION] + 0.4 * noise[:, first + 2, FLEXION]
    return noise


def _keep_fingers_apart(angles_deg: Array) -> Array:
    """Spread neighbouring fingers that would lie through each other: similar curl, crossing headings."""
    axes = anatomical_axes()
    heading = {f: np.rad2deg(np.arctan2(axes[f, TWIST, 2], -axes[f, TWIST, 0])) for f in _LONG}
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
