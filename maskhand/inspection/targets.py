"""The MANO parameters of a stored hand, from its sidecar or as annotated, and the mesh they make in its image."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from maskhand.annotate.mano_targets import right_hand_form
from maskhand.arrays import Array
from maskhand.conventions import MIRROR_POINT
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.layer import ManoLayer
from maskhand.shards.layout import MANO
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar_records import ManoTarget


@dataclass(frozen=True)
class Mesh:
    """A posed hand before the camera of the stored image."""

    vertices_cam_m: Array
    """(778, 3)."""
    faces: Array
    """(1538, 3)."""
    K_px: Array
    """(3, 3); HaMeR's assumed camera where the dataset has none."""


def target_of(row: ShardSample) -> ManoTarget | None:
    """The sidecar's target where the part was read, else the annotated parameters, which are believed; None without
    either."""
    if MANO in row.sidecars:
        return row.mano_target()
    if row.sample.mano is None:
        return None
    return ManoTarget(right_hand_form(row.sample), "annotated", mirrored=row.sample.side == "left")


def mesh_of(row: ShardSample, target: ManoTarget | None) -> Mesh | None:
    """The target's mesh, a left hand mirrored back; without a target the annotated mesh; None without either."""
    layer, sample = _layer(), row.sample
    faces, left = layer.faces.numpy(), sample.side == "left"
    if target is not None:
        batch = (torch.from_numpy(np.asarray(v, np.float32)[None]) for v in vars(target.pose).values())
        with torch.inference_mode():
            vertices = layer.from_axis_angle(*batch).vertices_m[0].numpy()
        vertices = vertices * MIRROR_POINT if left else vertices
    elif sample.vertices_cam_m is not None:
        vertices = sample.vertices_cam_m
    else:
        return None
    K_px = assumed_camera(sample.image_size_px) if sample.camera is None else sample.camera.K_px
    # The mirror image of a surface has the other winding.
    return Mesh(vertices, faces[:, ::-1].copy() if left else faces, K_px)


@functools.cache
def _layer() -> ManoLayer:
    return ManoLayer.from_default()
