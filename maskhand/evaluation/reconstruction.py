"""What a pose loses in VQ-MANO: poses to tokens and back (the paper's Tables 7 and 8)."""

from __future__ import annotations

import torch

from maskhand.evaluation.metrics.samples import SampleErrors, sample_errors
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.poses import PosePool
from maskhand.models.vq_mano import VQMano

BATCH = 256


@torch.inference_mode()
def reconstruction_errors(tokenizer: VQMano, mano: ManoLayer, poses: PosePool) -> dict[str, float]:
    """`SampleErrors.summary` of the decoded hands against the hands themselves, both with the pose's own shape."""
    if len(poses) == 0:
        raise ValueError("there is no MANO pose to reconstruct; run `maskhand annotate mano` on the set")
    parts = []
    for start in range(0, len(poses), BATCH):
        rotmats = axis_angle_to_matrix(torch.from_numpy(poses.pose_aa[start : start + BATCH])).to(mano.weights)
        betas = torch.from_numpy(poses.betas[start : start + BATCH]).to(mano.weights)
        true, decoded = mano(rotmats, betas), mano(tokenizer.decode_codes(tokenizer.encode(rotmats)), betas)
        points = [
            (points - mesh.joints_m[:, :1]).cpu()
            for mesh in (decoded, true)
            for points in (mesh.joints_m, mesh.vertices_m)
        ]
        parts.append(sample_errors(points[0], points[2], points[1], points[3]))
    return SampleErrors.concatenate(parts).summary()
