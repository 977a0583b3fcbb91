"""Ground truth of a batch, as right hands relative to the wrist: what predictions are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskhand.batch import HandBatch
from maskhand.conventions import MIRROR_POINT
from maskhand.hand.layer import HandMesh, ManoLayer
from maskhand.hand.rotations import turn_hands
from maskhand.placement import image_from_crop_axes
from maskhand.shards.reader import ShardSample


@dataclass(frozen=True)
class Truth:
    """Ground truth of B hands as right hands, meters, camera axes, relative to the wrist."""

    joints_m: Tensor
    """(B, 21, 3)."""
    joints_valid: Tensor
    """(B, 21) bool."""
    vertices_m: Tensor
    """(B, 778, 3)."""
    has_mesh: Tensor
    """(B,) bool."""


def ground_truth(hands: HandBatch, rows: Sequence[ShardSample], mano: ManoLayer) -> Truth:
    """The annotated mesh where a sample has one, else the mesh of its MANO target, else none."""
    target = target_meshes(hands, mano)
    vertices = (target.vertices_m - target.joints_m[:, :1]).cpu()
    has_mesh = hands.has_mano.bool().clone()
    for k, row in enumerate(rows):
        annotated, joints = row.sample.vertices_cam_m, row.sample.joints_cam_m
        if annotated is not None and joints is not None and hands.joints_3d_valid[k, 0] > 0:
            relative = (annotated - joints[0]) * (MIRROR_POINT if row.sample.side == "left" else 1.0)
            vertices[k], has_mesh[k] = torch.from_numpy(relative.astype(np.float32)), True
    turn = image_from_crop_axes(hands).to(hands.joints_3d_m)
    return Truth(hands.joints_3d_m @ turn.mT, hands.joints_3d_valid.bool(), vertices, has_mesh)


def target_meshes(hands: HandBatch, mano: ManoLayer) -> HandMesh:
    """The hands of B MANO targets before translation, in the axes of their images; of rows without target the mean."""
    rotmats = turn_hands(hands.rotmats, image_from_crop_axes(hands).to(hands.rotmats))
    return mano(rotmats.to(mano.weights.device), hands.betas.to(mano.weights.device))
