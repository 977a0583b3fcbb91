"""Film of two moving hands with its truth: a right and a left hand open, close and turn, cross, and one is covered.

Look, light and background are drawn once for the film. The right hand passes in front of the left one in the middle;
later a card slides past the left one and hides it for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline

from maskhand.arrays import Array64
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, NUM_JOINTS, Side
from maskhand.hand.anatomy import respect_limits, to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.synth.background import Image, make_background
from maskhand.synth.film import develop, meter, sample_grade
from maskhand.synth.freihand_hands import Studio
from maskhand.synth.look import sample_arm, sample_light, sample_skin
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.renderer import Layer, composite, render
from maskhand.synth.shading import Cloth, Light, Skin
from maskhand.synth.surface import Arm
from maskhand.synth.view import sample_betas

SIDES: tuple[Side, Side] = ("right", "left")
KEY_POSE_S = 1.0
"""Between the poses that the hands pass through."""
LEAN_RAD = 0.5
"""Standard deviation of a key orientation's turn from a hand that points up with its palm to the camera."""
DEPTHS_M = (0.55, 0.72)
"""Of the two hands: apart enough that they do not touch where they cross."""
SWAY, FOCAL = 0.28, 1.1
"""Half of the hands' way sideways in widths of the image at their depth; the focal length in widths."""
CROSSED_AT, COVERED_AT = 0.4, 0.75
"""Shares of the film's time."""
CARD_S = 0.3
"""How long the card covers any one point."""
CARD_SIZE = 1.3
"""Width of the card in widths of the box around the hand."""
CARD_RGB = (96, 120, 104)
_UPRIGHT = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""From the rest frame (fingers along -x, palm along -y) to camera axes: fingers up, palm to the camera."""


@dataclass(frozen=True)
class MovingHand:
    """The truth about a hand in T frames: OpenCV camera axes, meters."""

    side: Side
    pose_aa: Array64
    """(T, 16, 3) absolute axis-angle of this side's model."""
    betas: Array64
    """(10,)"""
    vertices_cam_m: Array64
    """(T, 778, 3)"""
    joints_cam_m: Array64
    """(T, 21, 3) OpenPose order, smplx's tips."""
    covered: NDArray[np.bool_]
    """(T,) the card hides most of the joints."""


@dataclass(frozen=True)
class HandFilm:
    """What is to be filmed."""

    size_px: tuple[int, int]
    """Width and height."""
    K_px: Array64
    """(3, 3)"""
    times_s: Array64
    """(T,)"""
    hands: tuple[MovingHand, ...]
    card_px: Array64
    """(T, 4) x0, y0, x1, y1 of the card."""

    def joints_px(self, hand: MovingHand) -> Array64:
        """(T, 21, 2)."""
        return project(hand.joints_cam_m, self.K_px)


@dataclass(frozen=True)
class _Look:
    """The appearance of the film; all the same for a left hand, in a mirror."""

    skin: Skin
    light: Light
    arm: Arm
    cloth: Cloth
    background: Image


def project(points_m: Array64, K_px: Array64) -> Array64:
    """(..., 3) camera axes -> (..., 2) pixels."""
    uvw = points_m @ K_px.T
    return np.asarray(uvw[..., :2] / uvw[..., 2:])


def script_film(seed: int, frames: int, frames_per_s: float, size_px: tuple[int, int]) -> HandFilm:
    """The motion of two hands of the configured model in `frames` frames; nothing is rendered."""
    layer = ManoLayer.from_default()
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / frames_per_s
    width, height = size_px
    focal = FOCAL * width
    K_px = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    end_s = frames / frames_per_s
    hands = []
    for side, depth, start in zip(SIDES, DEPTHS_M, (-1.0, 1.0), strict=True):
        pose, betas = _poses(rng, times, end_s), sample_betas(rng)
        middle = _way(rng, times, end_s, start * SWAY * depth / FOCAL, depth)
        hands.append(_moved(layer, side, pose, betas, middle))
    card = _card(project(hands[1].joints_cam_m, K_px), times, COVERED_AT * end_s, height)
    seen = [_inside(project(hand.joints_cam_m, K_px), card) <= NUM_JOINTS / 2 for hand in hands]
    return HandFilm(
        size_px,
        K_px,
        times,
        tuple(replace(hand, covered=~in_view) for hand, in_view in zip(hands, seen, strict=True)),
        card,
    )


def shoot(studio: Studio, film: HandFilm, seed: int) -> Iterator[Image]:
    """The frames (H, W, 3) uint8 RGB, one after the other."""
    rng = np.random.default_rng(seed)
    arm, cloth = sample_arm(rng)
    look = _Look(sample_skin(rng), sample_light(rng), arm, cloth, make_background(rng, film.size_px))
    grade = replace(sample_grade(rng), motion_px=0.0)
    gain = 0.0
    for frame, card in enumerate(film.card_px):
        layers = [_layer(studio, film, hand, frame, look) for hand in film.hands]
        layer = composite(*layers)
        if not gain:  # a camera that kept metering would flicker
            luminance = float(((look.skin.back + look.skin.palm) / 2 * np.array([0.21, 0.72, 0.07])).sum())
            gain = meter(layer, luminance)
        image = develop(layer, gain, look.background, grade, rng)
        x0, y0, x1, y1 = np.rint(card).astype(int).tolist()
        cv2.rectangle(image, (x0, y0), (x1, y1), CARD_RGB, cv2.FILLED)
        yield image


def _poses(rng: np.random.Generator, times_s: Array64, end_s: float) -> Array64:
    """(T, 16, 3) axis-angle of a right hand: smooth curves through drawn poses and orientations."""
    keys = np.arange(-1, np.ceil(end_s / KEY_POSE_S) + 2) * KEY_POSE_S
    angles = respect_limits(CubicSpline(keys, sample_poses(rng, len(keys)))(times_s))
    pose = to_axis_angle(angles)
    leans = Rotation.from_rotvec(LEAN_RAD * rng.standard_normal((len(keys), 3)))
    pose[:, 0] = RotationSpline(keys, leans * Rotation.from_matrix(_UPRIGHT))(times_s).as_rotvec()
    return pose


def _way(rng: np.random.Generator, times_s: Array64, end_s: float, start_m: float, depth_m: float) -> Array64:
    """(T, 3) of the hand's middle: from one side to the other, through the image's middle when the hands cross."""
    share = times_s / end_s
    sideways = start_m * np.cos(np.pi * np.minimum(share / (2 * CROSSED_AT), 1.0))
    bob = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.4, 0.8) * times_s + rng.uniform()))
    nod = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.5) * times_s + rng.uniform()))
    return np.stack([sideways, bob, depth_m + nod], axis=1)


def _moved(layer: ManoLayer, side: Side, pose: Array64, betas: Array64, middle_m: Array64) -> MovingHand:
    """A right hand of poses (T, 16, 3) about the way (T, 3), in a mirror if it is to be a left one."""
    signs = MIRROR_POINT if side == "left" else np.ones(3)
    with torch.no_grad():
        mesh = layer(
            torch.from_numpy(Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 16, 3, 3)).float(),
            torch.from_numpy(np.tile(betas, (len(pose), 1))).float(),
        )
    joints, vertices = mesh.joints_m.numpy().astype(np.float64), mesh.vertices_m.numpy().astype(np.float64)
    offset = middle_m[:, None] - signs * joints.mean(1, keepdims=True)
    return MovingHand(
        side,
        pose * (MIRROR_AXIS_ANGLE if side == "left" else 1.0),
        betas,
        vertices * signs + offset,
        joints * signs + offset,
        np.zeros(len(pose), bool),
    )


def _card(joints_px: Array64, times_s: Array64, at_s: float, height: int) -> Array64:
    """(T, 4) a card as high as the image that meets the hand (T, 21, 2) at that time."""
    k = int(np.argmin(np.abs(times_s - at_s)))
    low, high = joints_px[k].min(0)[0], joints_px[k].max(0)[0]
    half = CARD_SIZE * (high - low) / 2
    middle = (low + high) / 2 + (times_s - times_s[k]) * 2 * half / CARD_S
    return np.stack([middle - half, np.full_like(middle, -1.0), middle + half, np.full_like(middle, height)], axis=1)


def _inside(points_px: Array64, boxes: Array64) -> Array64:
    """(T, N, 2) and (T, 4) -> (T,) number of points in the box."""
    inside = (points_px >= boxes[:, None, :2]) & (points_px <= boxes[:, None, 2:])
    return np.asarray(inside.all(2).sum(1))


def _layer(studio: Studio, film: HandFilm, hand: MovingHand, frame: int, look: _Look) -> Layer:
    """The hand alone. A left one is rendered as a right one, in a mirror together with light and camera."""
    left = hand.side == "left"
    signs = MIRROR_POINT if left else np.ones(3)
    K_px = film.K_px.copy()
    K_px[0, 2] = film.size_px[0] - 1 - K_px[0, 2] if left else K_px[0, 2]
    flip = signs.astype(np.float32)
    light = replace(look.light, to_key=look.light.to_key * flip, up=look.light.up * flip)
    axes = Rotation.from_rotvec(hand.pose_aa[frame, 0] * (MIRROR_AXIS_ANGLE if left else 1.0)).as_matrix()
    mesh = studio.surface.build((hand.vertices_cam_m[frame] * signs).astype(np.float32), axes, look.arm)
    # the same soft shadows in every frame: their noise must not boil
    rng = np.random.default_rng(0)
    layer = render(studio.surface, mesh, [], studio.maps, look.skin, look.cloth, light, K_px, film.size_px, rng)
    return Layer(*(plane[:, ::-1] for plane in vars(layer).values())) if left else layer
