"""The MANO layer: pose and shape to a hand mesh and 21 joints, batched and differentiable.

The same function as smplx's `MANOLayer` (forward agrees to 1e-6 m): absolute rotation matrices in (no mean pose is
added), joints out in OpenPose order. Blend shapes are one matrix product; the chain is walked down all five fingers at
once; skinning is `hand.skinning`. Vertices are computed in planes (all x, all y, all z) and handed out as a view. A
third of the time for a training step's batch goes into starting operations, so there are few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskhand.conventions import FINGERTIP_VERTICES, NUM_BETAS, OPENPOSE_FROM_MANO_AND_TIPS, Side
from maskhand.hand.model_file import HandModel, default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.hand.skinning import skin

LayerName = Literal["maskhand", "smplx"]


@dataclass(frozen=True)
class HandMesh:
    """B posed hands in the frame of the global orientation (camera axes in maskhand), meters."""

    vertices_m: Tensor
    """(B, 778, 3)."""
    joints_m: Tensor
    """(B, 21, 3), OpenPose order; MANO's 16 joints (`conventions.openpose_joint_of_mano_joint`) and five vertices."""


class ManoLayer(nn.Module):
    """Linear blend skinning of a MANO-form hand model. No parameters; buffers follow `.to()` and `.double()`."""

    faces: Tensor
    """(1538, 3) int64."""
    straight: Tensor
    dirs: Tensor
    rest_joints: Tensor
    joint_dirs: Tensor
    below: Tensor
    weights: Tensor
    tip_ids: Tensor
    openpose_order: Tensor

    def __init__(self, model: HandModel, fingertip_vertices: str = "smplx") -> None:
        """`fingertip_vertices`: a key of `FINGERTIP_VERTICES`."""
        super().__init__()
        if fingertip_vertices not in FINGERTIP_VERTICES:
            raise ValueError(
                f"fingertip_vertices {fingertip_vertices!r}: expected one of {', '.join(FINGERTIP_VERTICES)}"
            )
        self.side = model.side
        self.digest = model.digest

        # Row k of `dirs`: how all vertices move per unit of beta k or of entry k of R; all x, all y, all z. Pose blend
        # shapes are of R - I, so what they do to I is taken out of the template once and for all.
        dirs = np.concatenate([model.shapedirs, model.posedirs], axis=2).transpose(2, 1, 0).reshape(NUM_BETAS + 135, -1)
        unbent = np.tile(np.eye(3).ravel(), 15) @ dirs[NUM_BETAS:]
        rest_joints = model.j_regressor @ model.v_template_m
        joint_dirs = np.einsum("jv,vck->kjc", model.j_regressor, model.shapedirs)
        floats = {
            "straight": model.v_template_m.T.reshape(-1) - unbent,
            "dirs": dirs,
            "rest_joints": np.concatenate([rest_joints, _bones(rest_joints)]).ravel(),
            "joint_dirs": np.concatenate([joint_dirs, _bones(joint_dirs)], axis=1).reshape(NUM_BETAS, -1),
            "below": np.array([0.0, 0.0, 0.0, 1.0]),
            "weights": model.weights.T,
        }
        integers = {
            "faces": model.faces,
            "tip_ids": np.array(FINGERTIP_VERTICES[fingertip_vertices]),
            "openpose_order": np.array(OPENPOSE_FROM_MANO_AND_TIPS),
        }
        for name, value in floats.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)
        for name, value in integers.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.int64), persistent=False)

    @classmethod
    def from_default(cls, side: Side = "right", fingertip_vertices: str = "smplx") -> ManoLayer:
        """The user's licensed MANO where configured, else the open hand."""
        return cls(load_hand_model(default_hand_path(side)), fingertip_vertices)

    def forward(self, rotmats: Tensor, betas: Tensor, transl_m: Tensor | None = None) -> HandMesh:
        """Pose the hand.

        rotmats (B, 16, 3, 3): absolute rotations, MANO order, global orientation first. betas (B, 10).
        transl_m (B, 3): added to vertices and joints after posing (smplx convention; the wrist is not at the origin).
        """
        batch = rotmats.shape[0]
        coefficients = torch.cat([betas, rotmats[:, 1:].reshape(batch, 135)], dim=1)
        rest_vertices = torch.addmm(self.straight, coefficients, self.dirs).view(batch, 3, -1)
        joints_and_bones = torch.addmm(self.rest_joints, betas, self.joint_dirs)
        rest_joints, bones = joints_and_bones.view(batch, 2, 16, 3, 1).unbind(1)

        rotations, positions = self._chain(torch.cat([rotmats, bones], dim=-1)).split([3, 1], dim=-1)
        offsets = torch.baddbmm(positions.flatten(0, 1), rotations.flatten(0, 1), rest_joints.flatten(0, 1), alpha=-1)
        transforms = torch.cat([rotations, offsets.view(batch, 16, 3, 1)], dim=-1).view(batch, 16, 12)
        vertices = skin(transforms.transpose(1, 2).contiguous(), rest_vertices, self.weights).transpose(1, 2)
        joints16 = positions.squeeze(-1)

        if transl_m is not None:
            vertices = vertices + transl_m[:, None]
            joints16 = joints16 + transl_m[:, None]
        joints21 = torch.cat([joints16, vertices[:, self.tip_ids]], dim=1)[:, self.openpose_order]
        return HandMesh(vertices, joints21)

    def from_axis_angle(self, pose_aa: Tensor, betas: Tensor, transl_m: Tensor | None = None) -> HandMesh:
        """As forward, from absolute axis-angle (B, 16, 3) or (B, 48), radians."""
        return self(axis_angle_to_matrix(pose_aa.reshape(-1, 16, 3)), betas, transl_m)

    def _chain(self, local: Tensor) -> Tensor:
        """(B, 16, 3, 4) rotations and positions of joints in their parents -> in the hand's frame.

        MANO's tree is the wrist and five fingers of three joints in a row; the reader of hand models accepts no other.
        """
        batch = len(local)
        wrist, fingers = local.split([1, 15], dim=1)
        square = torch.cat([fingers, self.below.expand(batch, 15, 1, 4)], dim=2)
        links, posed = square.view(batch, 5, 3, 4, 4).unbind(2), [wrist]
        for link in links:
            posed.append(posed[-1] @ link)
        return torch.cat([wrist, torch.stack(posed[1:], dim=2).view(batch, 15, 3, 4)], dim=1)


def make_layer(model: HandModel, kind: LayerName = "maskhand") -> ManoLayer:
    """The layer that a recipe's `hand.layer` names, with smplx's fingertips; either poses the same hand to 1e-6 m."""
    if kind == "smplx":
        from maskhand.hand.smplx_layer import SmplxLayer

        return SmplxLayer(model)
    return ManoLayer(model)


def load_layer(path: str | None, kind: LayerName) -> ManoLayer:
    """The right-hand layer of the model file at `path`; None: the configured file, or the open hand."""
    return make_layer(load_hand_model(path or default_hand_path("right")), kind)


def _bones(joints: np.ndarray) -> np.ndarray:
    """(..., 16, 3) -> the same, each relative to its parent joint; the wrist's position itself."""
    fingers = joints[..., 1:, :].reshape(*joints.shape[:-2], 5, 3, 3)
    wrist = joints[..., :1, :]
    above = np.concatenate(
        [np.broadcast_to(wrist[..., None, :], fingers[..., :1, :].shape), fingers[..., :2, :]], axis=-2
    )
    return np.concatenate([wrist, (fingers - above).reshape(*joints.shape[:-2], 15, 3)], axis=-2)
