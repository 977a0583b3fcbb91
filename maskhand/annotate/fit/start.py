"""The solver's starting states: the named hand shapes, aligned to the observations.

In 3D the orientation is computed from the palm in closed form, and every finger gets the named shape nearest to its
joints. In 2D, several hands that face towards or away from the camera may fit the same 21 points, so shapes seen from
all directions are compared with the keypoints (each rotated, translated and scaled in the image plane in closed form),
and the best viewing directions are starting states.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.annotate.fit.observed import Observed
from maskhand.annotate.fit.prior import PosePrior
from maskhand.annotate.fit.skeleton import DOF_JOINT, Skeleton, State
from maskhand.arrays import Array64, times_each
from maskhand.conventions import NUM_BETAS

PALM = (0, 1, 4, 7, 10, 13)
"""Wrist and the first joint of each finger, MANO's order: their positions do not depend on the finger angles."""
FINGER_IN_PALM_FIT = 0.02
"""Weight of the other points in the alignment of the palm: they matter only if the palm leaves it undetermined."""
VIEWS = 96
_FINGER_POINTS = np.array([[1 + 3 * f, 2 + 3 * f, 3 + 3 * f, 16 + tip] for f, tip in enumerate((1, 2, 4, 3, 0))])
_FINGER_OF_DOF = (DOF_JOINT - 1) // 3


class Starts:
    """The starting states for one hand model."""

    def __init__(self, skeleton: Skeleton, prior: PosePrior) -> None:
        count = len(prior.shapes)
        identity = np.tile(np.eye(3), (count, 1, 1))
        still = State(np.zeros((count, 3)), identity, prior.shapes, np.zeros((count, NUM_BETAS)))
        self.shapes = prior.shapes
        self.points_m = skeleton.points(still)
        self.mean_m = self.points_m.mean(0)
        # (V, 3, 3), one per viewing direction; the in-plane rotation is found in closed form
        self.views = _views(VIEWS)
        seen = np.einsum("vij,snj->vsni", self.views[:, :2], self.points_m)
        self.flat = (seen[..., 0] + 1j * seen[..., 1]).reshape(VIEWS * count, -1)

    def from_joints(self, joints_m: Array64, joint_weight: Array64) -> State:
        """One start per hand from its 3D joints (B, 21, 3) and their weights (B, 21), in MANO's order."""
        weight = joint_weight * FINGER_IN_PALM_FIT
        weight[:, PALM] = joint_weight[:, PALM]
        orientation, wrist = _align(self.mean_m, joints_m, weight)
        local = (joints_m - wrist[:, None]) @ orientation
        angles = np.empty((len(local), len(DOF_JOINT)))
        for finger, points in enumerate(_FINGER_POINTS):
            apart = ((local[:, None, points] - self.points_m[None][:, :, points]) ** 2).sum(3)
            nearest = (apart * joint_weight[:, None, points]).sum(2).argmin(1)
            columns = finger == _FINGER_OF_DOF
            angles[:, columns] = self.shapes[nearest][:, columns]
        return State(wrist, orientation, angles, np.zeros((len(local), NUM_BETAS)))

    def from_relative(self, seen: Observed) -> State:
        """One start per hand from the mean of its sources of relative joints, positioned by the keypoints (weak
        perspective); `seen` is in MANO's order."""
        precision = seen.relative_precision
        total = np.maximum(precision.sum(1), 1e-9)
        source_mean = (precision[..., None] * seen.relative_m).sum(2) / np.maximum(precision.sum(2), 1e-9)[..., None]
        centered = seen.relative_m - source_mean[:, :, None]
        joints, given = (precision[..., None] * centered).sum(1) / total[..., None], (precision > 0).any(1)
        share = given * seen.keypoint_weight
        share = share / np.maximum(share.sum(1, keepdims=True), 1e-9)
        flat = _normalized(seen)
        middle, place = ((share[..., None] * points).sum(1) for points in (joints, flat))
        spread, seen_spread = (
            (share * ((points[..., :2] - center[:, None, :2]) ** 2).sum(2)).sum(1)
            for points, center in ((joints, middle), (flat, place))
        )
        depth = np.sqrt(spread / np.maximum(seen_spread, 1e-12))
        center = np.concatenate([place, np.ones((len(place), 1))], axis=1) * depth[:, None]
        placed: Array64 = joints + (center - middle)[:, None]
        return self.from_joints(placed, np.where(given, 1.0, 0.0))

    def from_keypoints(self, seen: Observed, count: int) -> list[State]:
        """`count` starts per hand, best first, of different viewing directions; `seen` is in MANO's order."""
        weight = seen.keypoint_weight / np.maximum(seen.keypoint_weight.sum(1, keepdims=True), 1e-9)
        pixels = _normalized(seen)
        target = pixels[..., 0] + 1j * pixels[..., 1]
        middle = (weight * target).sum(1, keepdims=True)
        target = target - middle
        spread = weight @ (np.abs(self.flat) ** 2).T - np.abs(weight @ self.flat.T) ** 2
        product = (weight * target) @ self.flat.conj().T  # centered already: the target's weighted mean is zero
        # min over complex a of sum w |target - a (flat - mean)|^2 is the target's spread minus this
        explained = np.abs(product) ** 2 / np.maximum(spread, 1e-12)
        explained = explained.reshape(len(pixels), VIEWS, -1)
        shape = explained.argmax(2)
        views = np.argsort(-explained.max(2), axis=1, kind="stable")[:, :count]
        rows = np.arange(len(pixels))
        starts = []
        for view in views.T:
            entry = view * len(self.shapes) + shape[rows, view]
            factor = product[rows, entry] / np.maximum(spread[rows, entry], 1e-12)
            center = middle[:, 0] - factor * (weight * self.flat[entry]).sum(1)
            starts.append(self._placed(seen, view, shape[rows, view], factor, center))
        return starts

    def _placed(
        self, seen: Observed, view: NDArray[np.int64], shape: NDArray[np.int64], factor: Array64, wrist: Array64
    ) -> State:
        """Depth from the scale, under weak perspective; `wrist`: its projection in the normalized image plane."""
        scale = np.maximum(np.abs(factor), 1e-9)
        roll = Rotation.from_rotvec(np.angle(factor)[:, None] * [0, 0, 1]).as_matrix()
        depth = 1 / scale
        at = np.stack([wrist.real * depth, wrist.imag * depth, depth], axis=1)
        ray = np.stack([wrist.real, wrist.imag, np.ones(len(at))], axis=1)
        lean = rotation_between(np.array([0.0, 0.0, 1.0]), ray)
        return State(at, lean @ roll @ self.views[view], self.shapes[shape], np.zeros((len(at), NUM_BETAS)))


def _normalized(seen: Observed) -> Array64:
    """(B, 21, 2) keypoints on the plane at depth 1."""
    rays = np.concatenate([seen.keypoints_px, np.ones((*seen.keypoints_px.shape[:2], 1))], axis=2)
    on_plane = rays @ np.swapaxes(np.linalg.inv(seen.K_px), 1, 2)
    return np.asarray(on_plane[..., :2] / on_plane[..., 2:])


def _align(template: Array64, target: Array64, weight: Array64) -> tuple[Array64, Array64]:
    """Rotations (B, 3, 3) and wrist positions (B, 3) that align points (21, 3) to (B, 21, 3) (weighted Kabsch)."""
    share = weight / np.maximum(weight.sum(1, keepdims=True), 1e-9)
    from_mean, to_mean = times_each(share, template), (share[..., None] * target).sum(1)
    covariance = np.swapaxes(target - to_mean[:, None], 1, 2) @ (share[..., None] * (template - from_mean[:, None]))
    u, _, vt = np.linalg.svd(covariance)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation = u @ vt
    return rotation, to_mean + (rotation @ (template[0] - from_mean)[..., None])[..., 0]


def _views(count: int) -> Array64:
    """(count, 3, 3) rotations that map evenly distributed directions of the hand to the camera's axis."""
    k = np.arange(count) + 0.5
    height, around = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    directions = np.stack([radius * np.cos(around), radius * np.sin(around), height], axis=1)
    return np.swapaxes(rotation_between(np.array([0.0, 0.0, 1.0]), directions), 1, 2)


def rotation_between(axis: Array64, directions: Array64) -> Array64:
    """(N, 3, 3) minimal rotations of a unit axis to each direction (N, 3)."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cross = np.cross(axis, unit)
    sine, cosine = np.linalg.norm(cross, axis=1), unit @ axis
    scale = np.where(sine > 1e-12, np.arctan2(sine, cosine) / np.maximum(sine, 1e-12), 0.0)
    return np.asarray(Rotation.from_rotvec(cross * scale[:, None]).as_matrix())
