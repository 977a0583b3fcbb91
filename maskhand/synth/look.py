"""Random appearance of a scene: skin, light, sleeve and objects."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array32, Array64
from maskhand.synth.film import srgb_to_linear
from maskhand.synth.shading import Cloth, Light, Skin
from maskhand.synth.skin import NOISE_FIELDS
from maskhand.synth.solids import Finish, Solid, make_solid
from maskhand.synth.surface import FOREARM_LENGTH_M, Arm

# sRGB of the back and the palm of hands from little to much melanin; the palm has much less of it
_MELANIN = np.linspace(0, 1, 6)
_BACK = np.array(
    [(236, 196, 170), (222, 172, 140), (197, 141, 106), (158, 106, 75), (112, 73, 52), (72, 48, 38)], float
)
_PALM = np.array(
    [(240, 194, 172), (233, 182, 156), (219, 165, 135), (198, 146, 118), (172, 123, 98), (146, 103, 84)], float
)

HELD_SHARE = 0.33
HIDER_SHARE = 0.07
SLEEVE_SHARE = 0.4
HELD_TRIES = 8
MIN_HELD_M, MAX_HELD_M = 0.005, 0.040


def sample_skin(rng: np.random.Generator) -> Skin:
    melanin = rng.beta(1.1, 1.7)
    hue = rng.normal(0, [4, 3, 5])

    def tone(ramp: Array64) -> Array32:
        return srgb_to_linear(np.array([np.interp(melanin, _MELANIN, ramp[:, k]) for k in range(3)]) + hue)

    back, palm = tone(_BACK), tone(_PALM)
    redness = rng.uniform(0.3, 1.2)
    return Skin(
        back=back,
        palm=palm,
        blush=np.array([1 + 0.03 * redness, 1 - 0.22 * redness, 1 - 0.22 * redness], np.float32),
        nail=(0.75 * palm + 0.25 * srgb_to_linear((222, 172, 160))) * np.float32(rng.uniform(0.95, 1.2)),
        mottle=(rng.uniform(0.01, 0.035, NOISE_FIELDS) * rng.choice([-1, 1], NOISE_FIELDS)).astype(np.float32),
        mottle_red=(rng.uniform(0.02, 0.10, NOISE_FIELDS) * rng.choice([-1, 1], NOISE_FIELDS)).astype(np.float32),
        relief=float(rng.uniform(0.4, 1.25)),
        gloss=float(rng.uniform(0.15, 0.8)),
    )


def sample_light(rng: np.random.Generator) -> Light:
    """A key from above or the camera's side most of the time; overcast to harsh."""
    direction = np.array([rng.normal(0, 0.7), -abs(rng.normal(0.6, 0.5)), -rng.normal(0.6, 0.5)])
    if rng.random() < 0.1:
        direction[1] *= -1
    ratio = np.exp(rng.uniform(np.log(0.5), np.log(4.0)))
    warmth = rng.normal(0, 0.12)
    sky_warmth = rng.normal(-0.05, 0.1)
    up = np.array([rng.normal(0, 0.15), -1, rng.normal(-0.2, 0.2)])
    bounce = rng.uniform(0.35, 0.9) * np.exp(rng.normal(0, [0.12, 0.08, 0.12]))
    sky = np.exp([sky_warmth, 0, -sky_warmth])
    return Light(
        to_key=_unit(direction),
        key=(2.2 * ratio * np.exp([warmth, 0, -warmth])).astype(np.float32),
        softness=float(np.exp(rng.uniform(np.log(0.04), np.log(0.5)))),
        up=_unit(up),
        sky=sky.astype(np.float32),
        ground=(bounce * sky).astype(np.float32),
    )


def sample_arm(rng: np.random.Generator) -> tuple[Arm, Cloth]:
    sleeved = rng.random() < SLEEVE_SHARE
    arm = Arm(
        flexion_rad=float(np.clip(rng.normal(-0.15, 0.3), -0.9, 0.8)),
        deviation_rad=float(np.clip(rng.normal(-0.05, 0.14), -0.4, 0.3)),
        sleeve_from_m=float(rng.uniform(0.012, 0.12)) if sleeved else 2 * FOREARM_LENGTH_M,
        sleeve_slack=float(rng.uniform(0.08, 0.4)),
    )
    stripes = float(rng.uniform(15, 80)) if rng.random() < 0.3 else 0.0
    return arm, Cloth(_any_color(rng), _any_color(rng), stripes)


def sample_solids(vertices_m: Array64, joints_m: Array64, hand_axes: Array64, rng: np.random.Generator) -> list[Solid]:
    """Objects in and before a hand in camera axes: vertices (778, 3), joints (21, 3), hand_axes as in `HandSurface`."""
    solids = []
    if rng.random() < HELD_SHARE:
        held = _held(vertices_m, joints_m, hand_axes, rng)
        if held is not None:
            solids.append(held)
    if rng.random() < HIDER_SHARE:
        solids.append(_occluder(joints_m, rng))
    return solids


def _held(vertices_m: Array64, joints_m: Array64, hand_axes: Array64, rng: np.random.Generator) -> Solid | None:
    """The largest of a few that fit between fingers and palm without entering the skin; None when nothing fits."""
    kind = str(rng.choice(["cylinder", "cone", "box", "ellipsoid"], p=[0.42, 0.13, 0.25, 0.2]))
    shape = np.array([1.0, rng.uniform(0.5, 1.0) if kind == "box" else 1.0, rng.uniform(1.5, 4.5)])
    if kind == "ellipsoid":
        shape[2] = rng.uniform(0.8, 1.6)
    tips, knuckles = joints_m[[8, 12, 16]].mean(0), joints_m[[5, 9, 13]].mean(0)
    pinched = rng.random() < 0.3
    best: tuple[float, Array64, Array64] | None = None
    for _ in range(HELD_TRIES):
        if pinched:  # between thumb and index
            center, axis = (joints_m[4] + joints_m[8]) / 2 + rng.normal(0, 0.004, 3), rng.standard_normal(3)
        else:
            share = rng.uniform(0.3, 0.7)
            center = share * tips + (1 - share) * knuckles - rng.uniform(0.0, 0.045) * hand_axes[:, 1]
            axis = hand_axes[:, 2] + rng.normal(0, 0.25, 3)
        frame = _frame_about(_unit64(axis), rng)
        local = np.abs((vertices_m - center) @ frame) / shape
        # size at which each vertex would lie on the solid's surface
        if kind == "box":
            reach = local.max(1)
        elif kind == "ellipsoid":
            reach = np.linalg.norm(local, axis=1)
        else:
            reach = np.maximum(np.hypot(local[:, 0], local[:, 1]), local[:, 2])
        size = min(float(np.quantile(reach, 0.008)), MAX_HELD_M)
        if best is None or size > best[0]:
            best = (size, center, frame)
    if best is None or best[0] < MIN_HELD_M:
        return None
    size, center, frame = best
    return make_solid(kind, center, frame, size * shape, _finish(rng))


def _occluder(joints_m: Array64, rng: np.random.Generator) -> Solid:
    """An object between camera and hand that covers a part of it."""
    target = joints_m[rng.integers(21)] + rng.normal(0, 0.02, 3)
    center = target * rng.uniform(0.62, 0.85)
    frame = _frame_about(_unit64(rng.standard_normal(3)), rng)
    half = np.array([rng.uniform(0.004, 0.018), rng.uniform(0.004, 0.018), rng.uniform(0.015, 0.12)])
    return make_solid(str(rng.choice(["cylinder", "box", "ellipsoid"])), center, frame, half, _finish(rng))


def _finish(rng: np.random.Generator) -> Finish:
    return Finish(
        base=_any_color(rng),
        second=_any_color(rng),
        pattern=str(rng.choice(["plain", "bands", "label", "checks", "marble"], p=[0.4, 0.15, 0.2, 0.1, 0.15])),
        frequency=float(rng.integers(1, 7)),
        gloss=float(rng.uniform(0, 3)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _any_color(rng: np.random.Generator) -> Array32:
    """(3,) linear; black, white and gray are as common as colors."""
    gray = rng.uniform(15, 245)
    color = rng.uniform(15, 240, 3)
    return srgb_to_linear(gray + rng.beta(0.7, 1.2) * (color - gray))


def _frame_about(axis: Array64, rng: np.random.Generator) -> Array64:
    """(3, 3) right-handed, last column the axis, turned at random about it."""
    helper = np.eye(3)[np.argmin(np.abs(axis))]
    x = _unit64(np.cross(helper, axis))
    frame = np.stack([x, np.cross(axis, x), axis], 1)
    return np.asarray(Rotation.from_rotvec(rng.uniform(0, 2 * np.pi) * axis).as_matrix() @ frame)


def _unit64(v: Array64) -> Array64:
    return np.asarray(v / np.linalg.norm(v))


def _unit(v: Array64) -> Array32:
    return np.asarray(v / np.linalg.norm(v), np.float32)
