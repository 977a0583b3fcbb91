"""What a pose loses in VQ-MANO: poses to tokens and back (the paper's Tables 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from maskhand.device import accelerator
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix, geodesic_rad
from maskhand.loading.poses import PosePool, read_mano_poses
from maskhand.loading.upright import rest_direction, stand_upright
from maskhand.metrics.samples import SampleErrors, sample_errors
from maskhand.models.tokenizer_files import load_tokenizer
from maskhand.models.vq_mano import VQMano
from maskhand.paper.measures.request import Request

BATCH = 256


@torch.inference_mode()
def reconstruction_errors(
    tokenizer: VQMano, mano: ManoLayer, poses: PosePool, upright: bool = False
) -> dict[str, float]:
    """`SampleErrors.summary` of the decoded hands against the hands themselves, both with the pose's own shape.

    Alignment hides the error of the wrist's rotation, so the mean angles are there too: `orientation_deg` of the wrist,
    `rotation_deg` of the fifteen finger joints. upright: the hands stand as in crops of `data.upright`. ValueError when
    there is no pose.
    """
    errors, angles = [], []
    direction = rest_direction(mano)
    for rotmats, betas in _batches(poses, mano.weights):
        if upright:
            rotmats = stand_upright(rotmats, direction)
        decoded_rotmats = tokenizer.decode_codes(tokenizer.encode(rotmats))
        true, decoded = mano(rotmats, betas), mano(decoded_rotmats, betas)
        points = [
            (points - mesh.joints_m[:, :1]).cpu()
            for mesh in (decoded, true)
            for points in (mesh.joints_m, mesh.vertices_m)
        ]
        errors.append(sample_errors(points[0], points[2], points[1], points[3]))
        angles.append(geodesic_rad(decoded_rotmats, rotmats).rad2deg().cpu())
    off_deg = torch.cat(angles)
    turned = {"orientation_deg": off_deg[:, 0].mean().item(), "rotation_deg": off_deg[:, 1:].mean().item()}
    return SampleErrors.concatenate(errors).summary() | turned


def measure_tokenizer(request: Request) -> dict[str, float]:
    """Of the row's trained tokenizer on the poses of its set."""
    place, mano = accelerator(), ManoLayer.from_default()
    tokenizer = load_tokenizer(request.folder, request.recipe.tokenizer)
    poses, upright = read_mano_poses(request.set_uri), request.recipe.data.upright
    return reconstruction_errors(tokenizer.to(place), mano.to(place), poses, upright)


def _batches(poses: PosePool, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rotation matrices (B, 16, 3, 3) and betas (B, 10) on the device of `like`."""
    if len(poses) == 0:
        raise ValueError("there is no MANO pose to reconstruct; run `maskhand annotate mano` on the set")
    for start in range(0, len(poses), BATCH):
        part = slice(start, start + BATCH)
        yield (
            axis_angle_to_matrix(torch.from_numpy(poses.pose_aa[part])).to(like),
            torch.from_numpy(poses.betas[part]).to(like),
        )
