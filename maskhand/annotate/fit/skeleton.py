"""The fitter's hand model: 21 points and their derivatives, without the other 773 vertices.

A state has 42 parameters: wrist position, global orientation, the 26 anatomical angles that have a range, and ten
shape coefficients. Points are MANO's 16 joints followed by the five tips, thumb to little; the tips are skinned
vertices with their blend shapes, so the points are exactly the joints of `ManoLayer`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array64, times_each
from maskhand.conventions import FINGERTIP_VERTICES, NUM_BETAS, NUM_MANO_JOINTS
from maskhand.hand.anatomy import ABDUCTION, FLEXION, TWIST, anatomical_axes, pose_table
from maskhand.hand.model_file import HandModel

Indices = NDArray[np.int64]

NUM_POINTS = 21
_FINGERS = 5  # in MANO's order: index, middle, little, ring, thumb; finger f has the joints 1 + 3 f ...

DOF_JOINT: Indices
"""(26,) MANO joint of every angle that has a range."""
DOF_COLUMN: Indices
"""(26,) column of the angle: flexion, abduction or twist."""
DOF_JOINT, DOF_COLUMN = (np.ascontiguousarray(v) for v in np.nonzero(np.ptp(pose_table().limits_deg, axis=2) > 0))
NUM_ANGLES = len(DOF_JOINT)

WRIST, ORIENTATION = slice(0, 3), slice(3, 6)
ANGLES = slice(6, 6 + NUM_ANGLES)
BETAS = slice(ANGLES.stop, ANGLES.stop + NUM_BETAS)
NUM_PARAMETERS = BETAS.stop

# The joints that an angle rotates: its own, which stays in place, and those after it in the same finger.
_CARRIES = np.array(
    [[j > 0 and (j - 1) // 3 == (k - 1) // 3 and j >= k for j in range(NUM_MANO_JOINTS)] for k in DOF_JOINT], float
)
_MOVED_DOF, _MOVED_JOINT = np.nonzero(_CARRIES * (np.arange(NUM_MANO_JOINTS) > DOF_JOINT[:, None]))


@dataclass(frozen=True)
class State:
    """B hands. Right hands, meters, camera axes, radians."""

    wrist_m: Array64
    """(B, 3) the wrist joint."""
    orientation: Array64
    """(B, 3, 3) global orientation."""
    angles: Array64
    """(B, 26) anatomical angles, see DOF_JOINT and DOF_COLUMN."""
    betas: Array64
    """(B, 10)."""

    def __len__(self) -> int:
        return len(self.wrist_m)

    def __getitem__(self, rows: Indices | NDArray[np.bool_] | slice) -> State:
        return State(self.wrist_m[rows], self.orientation[rows], self.angles[rows], self.betas[rows])

    def moved(self, step: Array64) -> State:
        """The state after a step (B, 42); its rotation vector is in camera axes and applied after the orientation."""
        return State(
            self.wrist_m + step[:, WRIST],
            Rotation.from_rotvec(step[:, ORIENTATION]).as_matrix() @ self.orientation,
            self.angles + step[:, ANGLES],
            self.betas + step[:, BETAS],
        )

    @staticmethod
    def choose(condition: NDArray[np.bool_], yes: State, no: State) -> State:
        """For each row, `yes` if condition (B,) is True, else `no`."""
        out = no.copy()
        out.put(np.flatnonzero(condition), yes[condition])
        return out

    def put(self, rows: Indices, others: State) -> None:
        """Overwrite these rows, in place."""
        for name, value in vars(others).items():
            getattr(self, name)[rows] = value

    def copy(self) -> State:
        return State(self.wrist_m.copy(), self.orientation.copy(), self.angles.copy(), self.betas.copy())


@dataclass(frozen=True)
class _Posed:
    """Intermediate results of posing that the derivatives need."""

    points_m: Array64
    """(B, 21, 3)."""
    local: Array64
    """(B, 16, 3, 3) rotation of each joint relative to its parent."""
    world: Array64
    """(B, 16, 3, 3) rotation of each joint relative to the camera."""
    axes: Array64
    """(B, 26, 3) axis of every angle, in its parent joint's frame."""
    tip_parts_m: Array64
    """(B, 5, 16, 3) position of each tip if moved by each joint alone, before blending."""


class Skeleton:
    """A hand model reduced to the data of 21 points."""

    def __init__(self, model: HandModel, fingertip_vertices: str = "smplx") -> None:
        """`fingertip_vertices`: a key of `FINGERTIP_VERTICES`."""
        ids = list(FINGERTIP_VERTICES[fingertip_vertices])
        self.joints_m = model.j_regressor @ model.v_template_m
        self.joint_dirs = np.einsum("jv,vck->jck", model.j_regressor, model.shapedirs)
        self.tips_m = model.v_template_m[ids]
        self.tip_shapedirs = model.shapedirs[ids]
        self.tip_weights = model.weights[ids]
        self.tip_posedirs = model.posedirs[ids].reshape(15, NUM_MANO_JOINTS - 1, 9)
        self.axes = anatomical_axes()

    def rest_joints(self, betas: Array64) -> Array64:
        """(B, 10) -> (B, 16, 3) joints of the shaped hand before posing, meters."""
        return np.asarray(self.joints_m + _times(self.joint_dirs, betas))

    def points(self, state: State) -> Array64:
        """(B, 21, 3) meters: MANO's joints, then the tips."""
        return self._pose(state).points_m

    def points_and_jacobian(self, state: State) -> tuple[Array64, Array64]:
        """The points, and their exact derivatives (B, 21, 3, 42) with respect to the parameters."""
        posed = self._pose(state)
        points, world, batch = posed.points_m, posed.world, len(state)
        jacobian = np.zeros((batch, NUM_POINTS, 3, NUM_PARAMETERS))
        jacobian[..., WRIST] = np.eye(3)
        jacobian[..., ORIENTATION] = -_cross_matrix(points - points[:, :1])
        jacobian[..., ANGLES] = self._by_angles(posed)
        jacobian[..., BETAS] = self._by_betas(world)
        return points, jacobian

    def mano_pose(self, state: State) -> tuple[Array64, Array64]:
        """(B, 16, 3) absolute axis-angle and (B, 3) translation for `ManoLayer`."""
        local = self._rotations(state)[0]
        pose_aa = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 16, 3)
        return pose_aa, state.wrist_m - self.rest_joints(state.betas)[:, 0]

    def _pose(self, state: State) -> _Posed:
        local, axes = self._rotations(state)
        rest = self.rest_joints(state.betas)
        world, at = np.empty_like(local), np.empty_like(rest)
        world[:, 0], at[:, 0] = state.orientation, state.wrist_m
        for k in range(3):  # all fingers at once, from the base outwards
            joints = np.arange(1 + k, NUM_MANO_JOINTS, 3)
            parents = joints - 1 if k else np.zeros(_FINGERS, int)
            bones = rest[:, joints] - rest[:, parents]
            at[:, joints] = at[:, parents] + (world[:, parents] @ bones[..., None])[..., 0]
            world[:, joints] = world[:, parents] @ local[:, joints]
        bends = (local[:, 1:] - np.eye(3)).reshape(len(state), -1)
        flesh = times_each(bends, self.tip_posedirs.reshape(15, -1).T)
        tips = self.tips_m + _times(self.tip_shapedirs, state.betas) + flesh.reshape(-1, 5, 3)
        arms = tips[:, :, None] - rest[:, None]
        parts = at[:, None] + (world[:, None] @ arms[..., None])[..., 0]
        skinned = (parts * self.tip_weights[..., None]).sum(2)
        return _Posed(np.concatenate([at, skinned], axis=1), local, world, axes, parts)

    def _rotations(self, state: State) -> tuple[Array64, Array64]:
        """Local rotations (B, 16, 3, 3), and the axes of the angles (B, 26, 3) in the parent's frame."""
        angles = np.zeros((len(state), NUM_MANO_JOINTS, 3))
        angles[:, DOF_JOINT, DOF_COLUMN] = state.angles
        skew = _cross_matrix(self.axes)
        sine, versine = np.sin(angles)[..., None, None], 1 - np.cos(angles)[..., None, None]
        flexion, abduction, twist = np.moveaxis(np.eye(3) + sine * skew + versine * (skew @ skew), 2, 0)
        spread_bent = abduction @ flexion
        local = spread_bent @ twist
        local[:, 0] = state.orientation
        axes = np.empty_like(local)
        axes[:, :, ABDUCTION] = self.axes[:, ABDUCTION]
        axes[:, :, FLEXION] = (abduction @ self.axes[:, FLEXION, :, None])[..., 0]
        axes[:, :, TWIST] = (spread_bent @ self.axes[:, TWIST, :, None])[..., 0]
        return local, axes[:, DOF_JOINT, DOF_COLUMN]

    def _by_angles(self, posed: _Posed) -> Array64:
        """(B, 21, 3, 26)."""
        points, batch = posed.points_m, len(posed.points_m)
        parents = np.where(DOF_JOINT % 3 == 1, 0, DOF_JOINT - 1)
        axes = (posed.world[:, parents] @ posed.axes[..., None])[..., 0]
        pivots = points[:, DOF_JOINT]
        out = np.zeros((batch, NUM_POINTS, 3, NUM_ANGLES))
        arms = points[:, _MOVED_JOINT] - pivots[:, _MOVED_DOF]
        out[:, _MOVED_JOINT, :, _MOVED_DOF] = np.moveaxis(np.cross(axes[:, _MOVED_DOF], arms), 1, 0)
        # A tip is skinned to several joints; an angle moves it by the weights of the joints that the angle rotates.
        shares = self.tip_weights[:, None] * _CARRIES  # (5, 26, 16)
        carried = shares @ posed.tip_parts_m - shares.sum(2)[..., None] * pivots[:, None]
        by_tips = np.cross(axes[:, None], carried)
        # ... and by pose blend shapes.
        turning = np.cross(posed.axes[:, :, None], np.swapaxes(posed.local[:, DOF_JOINT], 2, 3))
        entries = np.swapaxes(turning, 2, 3).reshape(batch, NUM_ANGLES, 1, 9)
        directions = self.tip_posedirs[:, DOF_JOINT - 1].transpose(1, 2, 0)  # (26, 9, 15)
        flesh = (entries @ directions).reshape(batch, NUM_ANGLES, 5, 3).swapaxes(1, 2)
        by_tips += flesh @ np.swapaxes(self._tip_frames(posed.world), 2, 3)
        out[:, NUM_MANO_JOINTS:] = np.swapaxes(by_tips, 2, 3)
        return out

    def _by_betas(self, world: Array64) -> Array64:
        """(B, 21, 3, 10); zero for the wrist, which is a separate parameter and does not depend on the shape."""
        batch = len(world)
        out = np.zeros((batch, NUM_POINTS, 3, NUM_BETAS))
        for k in range(3):
            joints = np.arange(1 + k, NUM_MANO_JOINTS, 3)
            parents = joints - 1 if k else np.zeros(_FINGERS, int)
            out[:, joints] = out[:, parents] + world[:, parents] @ (self.joint_dirs[joints] - self.joint_dirs[parents])
        hung = out[:, :NUM_MANO_JOINTS] - world @ self.joint_dirs
        out[:, NUM_MANO_JOINTS:] = self._tip_frames(world) @ self.tip_shapedirs
        out[:, NUM_MANO_JOINTS:] += (self.tip_weights @ hung.reshape(batch, NUM_MANO_JOINTS, -1)).reshape(
            batch, 5, 3, NUM_BETAS
        )
        return out

    def _tip_frames(self, world: Array64) -> Array64:
        """(B, 5, 3, 3) blended rotation of each tip."""
        return (self.tip_weights @ world.reshape(len(world), NUM_MANO_JOINTS, 9)).reshape(-1, 5, 3, 3)


def _times(directions: Array64, betas: Array64) -> Array64:
    """(N, 3, 10) directions and (B, 10) coefficients -> (B, N, 3)."""
    return times_each(betas, directions.reshape(-1, NUM_BETAS).T).reshape(len(betas), -1, 3)


def _cross_matrix(vectors: Array64) -> Array64:
    """(..., 3) v -> (..., 3, 3) M with M w = v x w (cross product)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vectors.shape, 3)
