"""Diversity and plausibility of hands made from nothing (the paper's Table 11): the model's, and random PCA poses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskhand.config import SamplerConfig
from maskhand.evaluation.metrics.generation import average_pairwise_distance, self_intersection
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import HandModel
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import generate


@torch.inference_mode()
def generated_hands(model: MaskedTransformer, count: int, sampler: SamplerConfig, seed: int) -> dict[str, float]:
    """`apd_mm` and `self_intersection_percent` of `count` unconditional hands of the mean shape."""
    generator = torch.Generator(model.mano.weights.device).manual_seed(seed)
    return _figures(model.mano, generate(model, count, sampler, generator).rotmats)


@torch.inference_mode()
def pca_hands(hand: HandModel, count: int, seed: int) -> dict[str, float]:
    """The same of poses drawn from the unit normal distribution in the hand model's principal components."""
    coefficients = np.random.default_rng(seed).standard_normal((count, len(hand.hands_components)))
    fingers = (coefficients @ hand.hands_components).reshape(count, 15, 3) + hand.hands_mean_aa
    pose = np.concatenate([np.zeros((count, 1, 3)), fingers], axis=1).astype(np.float32)
    return _figures(ManoLayer(hand), axis_angle_to_matrix(torch.from_numpy(pose)))


def _figures(mano: ManoLayer, rotmats: Tensor) -> dict[str, float]:
    """Wrists in one place and turned alike, so that only the fingers count."""
    rotmats = rotmats.clone()
    rotmats[:, 0] = torch.eye(3).to(rotmats)
    mesh = mano(rotmats, rotmats.new_zeros(len(rotmats), 10))
    joints = (mesh.joints_m - mesh.joints_m[:, :1]).cpu().double().numpy()
    share = self_intersection(mesh.vertices_m.cpu().double().numpy(), mano.faces.cpu().numpy())
    return {
        "apd_mm": 1e3 * average_pairwise_distance(joints),
        "self_intersection_percent": 100 * float(share.mean()),
    }
