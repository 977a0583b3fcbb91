"""Diversity and plausibility of hands made from nothing (the paper's Table 11): the model's, and random PCA poses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.config import SamplerConfig
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import HandModel, HandModelError, default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.metrics.generation import average_pairwise_distance, self_intersection
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import generate
from maskhand.paper.measures.request import Request

NO_SPREAD = (
    "{file}: no field 'hands_coeffs' (N, 45), the poses that 'hands_components' were made from; random PCA hands need "
    "their spread along each component. MANO's own MANO_RIGHT.pkl and the open hand have it"
)


@torch.inference_mode()
def generated_hands(model: MaskedTransformer, count: int, sampler: SamplerConfig, seed: int) -> dict[str, float]:
    """`apd_mm` and `self_intersection_percent` of `count` unconditional hands of the mean shape."""
    generator = torch.Generator(model.mano.weights.device).manual_seed(seed)
    return _apd_and_self_intersection(model.mano, generate(model, count, sampler, generator).rotmats)


@torch.inference_mode()
def pca_hands(hand: HandModel, count: int, seed: int) -> dict[str, float]:
    """The same of `pca_poses`."""
    pose = np.concatenate([np.zeros((count, 1, 3)), pca_poses(hand, count, seed)], axis=1).astype(np.float32)
    return _apd_and_self_intersection(ManoLayer(hand), axis_angle_to_matrix(torch.from_numpy(pose)))


def measure_generation(request: Request) -> dict[str, float]:
    """Of the row's trained model."""
    return generated_hands(request.transformer(), request.generated, request.recipe.sampler, request.recipe.seed)


def measure_pca(request: Request) -> dict[str, float]:
    """Of random PCA poses of the configured hand model, which nothing trains."""
    return pca_hands(load_hand_model(default_hand_path("right")), request.generated, request.recipe.seed)


def pca_poses(hand: HandModel, count: int, seed: int) -> Array:
    """(count, 15, 3) axis-angle: around the hand model's mean pose, along each of its principal components normally
    distributed with the spread of the poses that the components were made from.

    Raises HandModelError when the hand model does not know that spread.
    """
    if hand.hands_std is None:
        raise HandModelError(NO_SPREAD.format(file=f"hand model {hand.digest}"))
    coefficients = hand.hands_std * np.random.default_rng(seed).standard_normal((count, len(hand.hands_std)))
    return (coefficients @ hand.hands_components).reshape(count, 15, 3) + hand.hands_mean_aa


def _apd_and_self_intersection(mano: ManoLayer, rotmats: Tensor) -> dict[str, float]:
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
