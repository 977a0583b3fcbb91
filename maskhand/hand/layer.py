"""The MANO layer: pose and shape to a hand mesh and 21 joints, batched and differentiable.

The same function as smplx's `MANOLayer` (forward agrees to 1e-6 m): absolute rotation matrices in (no mean pose is
added), joints out in OpenPose order. Blend shapes are one matrix product; the chain is walked down all five fingers at
once; skinning is `hand.skinning`. Vertices are computed in planes (all x, all y, all z) and handed out as a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maskhand.conventions import FINGERTIP_VERTICES, NUM_BETAS, OPENPOSE_FROM_MANO_AND_TIPS, Side
from maskhand.hand.model_file import HandModel, default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.hand.skinning import skin


@dataclass(frozen=True)
class HandMesh:
    """B posed hands in the frame of the global orientation (camera axes in maskhand), metres."""

    vertices_m: Tensor
    """(B, 778, 3)."""
    joints_m: Tensor
    """(B, 21, 3), OpenPose order; the tips are vertices of the mesh."""
    joints16_m: Tensor
    """(B, 16, 3), MANO order."""


class ManoLayer(nn.Module):
    """Linear blend skinning of a MANO-form hand model. No parameters; buffers follow `.to()` and `.double()`."""

    faces: Tensor
    """(1538, 3) int64."""
    v_template: Tensor
    dirs: Tensor
    rest_joints: Tensor
    joint_dirs: Tensor
    weights: Tensor
    tip_ids: Tensor
    openpose_order: Tensor

    def __init__(self, model: HandModel, tips: str = "smplx") -> None:
        """`tips`: whose fingertip vertices to use, a key of `FINGERTIP_VERTICES`."""
        super().__init__()
        if tips not in FINGERTIP_VERTICES:
            raise ValueError(f"tips {tips!r}: expected one of {', '.join(FINGERTIP_VERTICES)}")
        self.side = model.side
        self.digest = model.digest

        # Row k of `dirs`: how all vertices move per unit of beta k or of entry k of (R - I); all x, all y, all z.
        dirs = np.concatenate([model.shapedirs, model.posedirs], axis=2).transpose(2, 1, 0).reshape(NUM_BETAS + 135, -1)
        rest_joints = model.j_regressor @ model.v_template_m
        joint_dirs = np.einsum("jv,vck->kjc", model.j_regressor, model.shapedirs).reshape(NUM_BETAS, -1)
        floats = {
            "v_template": model.v_template_m.T.reshape(-1),
            "dirs": dirs,
            "rest_joints": rest_joints.reshape(-1),
            "joint_dirs": joint_dirs,
            "weights": model.weights.T,
        }
        integers = {
            "faces": model.faces,
            "tip_ids": np.array(FINGERTIP_VERTICES[tips]),
            "openpose_order": np.array(OPENPOSE_FROM_MANO_AND_TIPS),
        }
        for name, value in floats.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)
        for name, value in integers.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.int64), persistent=False)

    @classmethod
    def from_default(cls, side: Side = "right", tips: str = "smplx") -> ManoLayer:
        """The user's licensed MANO where configured, else the open hand."""
        return cls(load_hand_model(default_hand_path(side)), tips)

    def forward(self, rotmats: Tensor, betas: Tensor, transl_m: Tensor | None = None) -> HandMesh:
        """Pose the hand.

        rotmats (B, 16, 3, 3): absolute rotations, MANO order, global orientation first. betas (B, 10).
        transl_m (B, 3): added to vertices and joints after posing (smplx convention; the wrist is not at the origin).
        """
        batch = rotmats.shape[0]
        identity = torch.eye(3, dtype=rotmats.dtype, device=rotmats.device)
        coefficients = torch.cat([betas, (rotmats[:, 1:] - identity).reshape(batch, 135)], dim=1)
        rest_vertices = torch.addmm(self.v_template, coefficients, self.dirs).view(batch, 3, -1)
        rest_joints = torch.addmm(self.rest_joints, betas, self.joint_dirs).view(batch, 16, 3)

        rotations, joints16 = self._chain(rotmats, rest_joints)
        offsets = joints16 - (rotations @ rest_joints[..., None]).squeeze(-1)
        transforms = torch.cat([rotations, offsets[..., None]], dim=-1).view(batch, 16, 12)
        vertices = skin(transforms.transpose(1, 2).contiguous(), rest_vertices, self.weights).transpose(1, 2)

        if transl_m is not None:
            vertices = vertices + transl_m[:, None]
            joints16 = joints16 + transl_m[:, None]
        joints21 = torch.cat([joints16, vertices[:, self.tip_ids]], dim=1)[:, self.openpose_order]
        return HandMesh(vertices, joints21, joints16)

    def from_axis_angle(self, pose_aa: Tensor, betas: Tensor, transl_m: Tensor | None = None) -> HandMesh:
        """As forward, from absolute axis-angle (B, 16, 3) or (B, 48), radians."""
        return self(axis_angle_to_matrix(pose_aa.reshape(-1, 16, 3)), betas, transl_m)

    def _chain(self, rotmats: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
        """Global rotations (B, 16, 3, 3) and posed joints (B, 16, 3).

        MANO's tree is the wrist and five fingers of three joints in a row; the reader of hand models takes no other.
        """
        fingers = rotmats[:, 1:].unflatten(1, (5, 3))
        rest_fingers = rest_joints[:, 1:].unflatten(1, (5, 3))
        above = torch.cat([rest_joints[:, None, :1].expand(-1, 5, -1, -1), rest_fingers[:, :, :2]], dim=2)
        bones = (rest_fingers - above)[..., None]
        rotation, position = rotmats[:, :1], rest_joints[:, :1]
        rotations, positions = [], []
        for link in range(3):
            position = position + (rotation @ bones[:, :, link]).squeeze(-1)
            rotation = rotation @ fingers[:, :, link]
            rotations.append(rotation)
            positions.append(position)
        return (
            torch.cat([rotmats[:, :1], torch.stack(rotations, dim=2).flatten(1, 2)], dim=1),
            torch.cat([rest_joints[:, :1], torch.stack(positions, dim=2).flatten(1, 2)], dim=1),
        )
