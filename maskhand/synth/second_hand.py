"""A left hand that touches a rendered right hand, or is near it, as in pictures of two hands.

It is a right hand in a mirror: the reflection of a posed mesh. It slides towards the first hand until their surfaces
meet, so that the two do not pass through each other, and a gap is left in half of the images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64
from maskhand.hand.anatomy import to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.surface import Arm, ArmMesh, HandSurface
from maskhand.synth.view import sample_orientation

PALM_TO_PALM_SHARE = 0.5
"""Share of the second hands that are nearly the first one's reflection in a plane along its palm; others are random."""
SAME_POSE_SHARE = 0.6
"""Share of these whose fingers are bent as the first one's."""
TOUCHING_SHARE = 0.5
MEAN_GAP_M = 0.02
"""Mean of the exponential distribution of the gap between hands that do not touch."""
CONTACT_M = 0.004
"""Distance of vertices at which surfaces touch; between neighboring vertices there are 5 mm or so."""
FARTHEST_M, STEP_M = 0.30, 0.01
"""Start and step of the slide, between the hands' middles."""


def second_hand(
    layer: ManoLayer,
    surface: HandSurface,
    pose_aa: Array64,
    betas: Array64,
    vertices_cam_m: Array64,
    arm: Arm,
    rng: np.random.Generator,
) -> ArmMesh:
    """The mesh of a left hand and its forearm beside a right hand, camera axes, meters.

    pose_aa (16, 3), betas (10,), vertices_cam_m (778, 3): the right hand; arm: the shape of the left forearm. The left
    hand has the same betas, as if of the same person.
    """
    axes = Rotation.from_rotvec(pose_aa[0]).as_matrix()
    pose = to_axis_angle(sample_poses(rng, 1))[0]
    if rng.random() < PALM_TO_PALM_SHARE:
        if rng.random() < SAME_POSE_SHARE:
            pose[1:] = pose_aa[1:]
        # palms face -y of the hand's axes
        normal = _unit(axes[:, 1] + 0.25 * rng.standard_normal(3))
        turn = Rotation.from_rotvec(rng.normal(0, 0.5) * normal) * Rotation.from_rotvec(0.2 * rng.standard_normal(3))
        orientation = turn.as_matrix() @ axes
        away = _unit(-normal + 0.25 * rng.standard_normal(3))
    else:
        normal = np.array([1.0, 0.0, 0.0])
        orientation = sample_orientation(rng)
        away = _unit(rng.standard_normal(3))
    mirror = np.eye(3) - 2 * np.outer(normal, normal)
    pose[0] = Rotation.from_matrix(orientation).as_rotvec()
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()[None]).float()
    with torch.no_grad():
        vertices = layer(rotations, torch.from_numpy(betas[None]).float()).vertices_m[0].numpy().astype(np.float64)
    mesh = surface.build(vertices.astype(np.float32), orientation, arm)
    start = vertices_cam_m.mean(0) - mirror @ vertices.mean(0)
    gap = 0.0 if rng.random() < TOUCHING_SHARE else rng.exponential(MEAN_GAP_M)
    shift = start + (_contact_m(vertices_cam_m, vertices @ mirror + start, away) + gap) * away
    return replace(
        mesh,
        vertices_m=(mesh.vertices_m @ mirror + shift).astype(np.float32),
        normals=(mesh.normals @ mirror).astype(np.float32),
    )


def _contact_m(fixed_m: Array64, moving_m: Array64, direction: Array64) -> float:
    """How far along a unit vector (3,) points (M, 3) stop, coming from afar, before they touch points (N, 3)."""
    tree = cKDTree(fixed_m)
    reached = FARTHEST_M
    while reached > 0 and tree.query(moving_m + (reached - STEP_M) * direction)[0].min() > CONTACT_M:
        reached -= STEP_M
    return reached


def _unit(v: Array64) -> Array64:
    return np.asarray(v / np.linalg.norm(v))
