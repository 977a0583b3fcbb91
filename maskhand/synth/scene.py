"""One synthetic hand from one seed: pose, shape, camera, look; its labels and its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64
from maskhand.hand.anatomy import ABDUCTION, FLEXION, TWIST, anatomical_axes, to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.synth.background import Image, make_background
from maskhand.synth.film import develop, encode_jpeg, meter, sample_grade
from maskhand.synth.look import sample_arm, sample_light, sample_skin, sample_solids
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.renderer import Layer, composite, render
from maskhand.synth.second_hand import second_hand
from maskhand.synth.skin import SkinMaps, paint
from maskhand.synth.surface import HandSurface
from maskhand.synth.view import SIZE_PX, fit_view, sample_betas, sample_orientation

STREAMS = {"training": 0, "evaluation": 1, "mocap": 2, "letters": 3}
# an object may hide most of a hand, but a sliver of skin teaches nothing
MIN_VISIBLE_SHARE = 0.30


@dataclass(frozen=True)
class Studio:
    """The constants of all images: hand model, smoothed surface, painted skin."""

    layer: ManoLayer
    surface: HandSurface
    maps: SkinMaps
    hands_mean_aa: Array64
    """(15, 3) mean pose of the model file."""


@dataclass(frozen=True)
class HandLabels:
    """Exact labels, OpenCV camera axes, meters, FreiHAND's fingertip vertices."""

    pose_aa: Array64
    """(16, 3) absolute axis-angle, row 0 the global orientation."""
    betas: Array64
    """(10,)"""
    K_px: Array64
    """(3, 3)"""
    vertices_cam_m: Array64
    """(778, 3)"""
    joints_cam_m: Array64
    """(21, 3) OpenPose order."""


@dataclass(frozen=True)
class Foreground:
    """A rendered hand, ready for any number of backgrounds."""

    layer: Layer
    gain: float
    """Exposure the camera's meter would choose."""


def random_streams(seed: int, split: str, index: int, count: int) -> list[np.random.Generator]:
    """Independent generators of one sample; they depend on nothing else, so workers and order do not matter."""
    root = np.random.SeedSequence(seed, spawn_key=(STREAMS[split], index))
    return [np.random.default_rng(child) for child in root.spawn(count)]


@cache
def open_studio(hand_path: Path | None = None) -> Studio:
    """Load the right-hand model (the configured one when no path is given) and paint its skin."""
    model = load_hand_model(hand_path or default_hand_path("right"))
    surface = HandSurface(model)
    axes = anatomical_axes()[:, [TWIST, FLEXION, ABDUCTION]]
    return Studio(ManoLayer(model, fingertip_vertices="freihand"), surface, paint(surface, axes), model.hands_mean_aa)


def sample_labels(studio: Studio, rng: np.random.Generator) -> HandLabels:
    """Draw pose, shape, orientation and camera, and pose the hand."""
    pose = to_axis_angle(sample_poses(rng, 1))[0]
    pose[0] = Rotation.from_matrix(sample_orientation(rng)).as_rotvec()
    return pose_hand(studio, pose, sample_betas(rng), rng)


def pose_hand(studio: Studio, pose: Array64, betas: Array64, rng: np.random.Generator) -> HandLabels:
    """Put a hand of pose (16, 3) axis-angle and betas (10,) before a camera that is drawn."""
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()[None]).float()
    # one hand at a time: a batched product may round differently with the batch's size, and bytes must not
    with torch.no_grad():
        mesh = studio.layer(rotations, torch.from_numpy(betas[None]).float())
    vertices = mesh.vertices_m[0].numpy().astype(np.float64)
    joints = mesh.joints_m[0].numpy().astype(np.float64)
    view = fit_view(vertices, rng)
    return HandLabels(pose, betas, view.K_px, vertices + view.transl_m, joints + view.transl_m)


def render_foreground(
    studio: Studio,
    labels: HandLabels,
    rng: np.random.Generator,
    *,
    empty_handed: bool = False,
    second_rng: np.random.Generator | None = None,
) -> Foreground:
    """Draw skin, light, sleeve and objects (none for an empty hand), and render; with `second_rng` also the left hand
    that it draws, unless that hides the labeled one."""
    skin, light = sample_skin(rng), sample_light(rng)
    arm_shape, cloth = sample_arm(rng)
    hand_axes = Rotation.from_rotvec(labels.pose_aa[0]).as_matrix()
    arm = studio.surface.build(labels.vertices_cam_m.astype(np.float32), hand_axes, arm_shape)
    solids = [] if empty_handed else sample_solids(labels.vertices_cam_m, labels.joints_cam_m, hand_axes, rng)
    size = (SIZE_PX, SIZE_PX)
    layer = render(studio.surface, arm, solids, studio.maps, skin, cloth, light, labels.K_px, size, rng)
    if solids and layer.hand.sum() < MIN_VISIBLE_SHARE * _outline_area_px(labels):
        layer = render(studio.surface, arm, [], studio.maps, skin, cloth, light, labels.K_px, size, rng)
    if second_rng is not None:
        other_arm = sample_arm(second_rng)[0]
        other = second_hand(
            studio.layer, studio.surface, labels.pose_aa, labels.betas, labels.vertices_cam_m, other_arm, second_rng
        )
        beside = render(studio.surface, other, [], studio.maps, skin, cloth, light, labels.K_px, size, second_rng)
        both = composite(layer, replace(beside, hand=np.zeros_like(beside.hand)))
        if both.hand.sum() >= MIN_VISIBLE_SHARE * _outline_area_px(labels):
            layer = both
    luminance = float(((skin.back + skin.palm) / 2 * np.array([0.21, 0.72, 0.07])).sum())
    return Foreground(layer, meter(layer, luminance))


def photograph(foreground: Foreground, rng: np.random.Generator, kind: str | None = None) -> bytes:
    """JPEG of the foreground before a new background, taken by a new camera."""
    background: Image = make_background(rng, (SIZE_PX, SIZE_PX), kind)
    grade = sample_grade(rng)
    image = develop(foreground.layer, foreground.gain, background, grade, rng)
    return encode_jpeg(image, grade.jpeg_quality)


def mask_jpeg(foreground: Foreground) -> bytes:
    """255 where the hand is visible, 0 elsewhere."""
    return encode_jpeg(((foreground.layer.hand > 0.5) * 255).astype(np.uint8), 95)


def _outline_area_px(labels: HandLabels) -> float:
    """Area of a posed hand's projection without its hollows, estimated by filling its faces' hull per finger."""
    uvw = labels.vertices_cam_m @ labels.K_px.T
    hull = cv2.convexHull((uvw[:, :2] / uvw[:, 2:]).astype(np.float32))
    # a spread hand fills about half of its hull
    return 0.5 * float(cv2.contourArea(hull))
