"""The joint confidence of a reported hand: a calibrated comparison with hands sampled for the same image.

A token's probability refers to a rotation code, but the error of a joint is wanted. So 32 hands are sampled, all tokens
at once (T = 1, temperature 1, no filter), and aligned with the reported hand; the bundle's calibration maps statistics
of their joints to a probability and an expected error. All hands use the same noise, so a hand's confidence depends
neither on the other hands of its batch nor on its position in it.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.config import SamplerConfig
from maskhand.models.calibration import (
    WITHIN_MM,
    Calibration,
    DrawStatistics,
    JointCalibration,
    JointConfidence,
    draw_features,
    joint_calibration,
)
from maskhand.models.decoding import gumbel_noise
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context, HandNetwork
from maskhand.models.similarity import rotate_onto, squared_size
from maskhand.models.vq_mano import full_precision

DRAWS, SEED = 32, 0
_HANDS_AT_ONCE = 512


def calibrated_confidence(
    model: HandNetwork,
    context: Context,
    joints_m: Tensor | Array,
    sampler: SamplerConfig,
    calibration: Calibration | None,
) -> JointConfidence:
    """`joint_confidence` by the calibration of a bundle; NaN where it has none for the recipe's `sampler`."""
    of_joints = joint_calibration(sampler, calibration)
    if calibration is None or of_joints is None:
        unknown = np.full(joints_m.shape[:2], np.nan)
        return JointConfidence(unknown, unknown, unknown)
    return joint_confidence(model, context, joints_m, of_joints, calibration.draws, calibration.seed)


@torch.no_grad()
def joint_confidence(
    model: HandNetwork,
    context: Context,
    joints_m: Tensor | Array,
    calibration: JointCalibration,
    draws: int = DRAWS,
    seed: int = SEED,
) -> JointConfidence:
    """The calibrated confidence of the joints of B reported right hands.

    context: the B encoded images; joints_m (B, 21, 3) the reported hands, meters, in any frame (sampled hands are
    aligned with them); calibration: of the method that reported them; draws, seed: as in the calibration.
    """
    return calibration(draw_features(draw_statistics(sample_joints(model, context, draws, seed), joints_m)))


@torch.no_grad()
def sample_joints(model: HandNetwork, context: Context, draws: int = DRAWS, seed: int = SEED) -> Tensor:
    """(B, draws, 21, 3) meters: joints of hands sampled from the model's distribution at T = 1 and temperature 1.

    Raises ValueError for a network without tokens, which has no distribution.
    """
    if not isinstance(model, MaskedTransformer):
        raise ValueError(f"{type(model).__name__} predicts one hand per image; there is no distribution to sample from")
    images, device = len(context.betas), context.betas.device
    masked = torch.full((images, model.num_tokens), model.mask_id, device=device)
    logits = model.logits(masked, context).float()
    noise = _noise(draws, model.num_tokens, logits.shape[-1], seed, device)
    ids = torch.stack([(logits + noise[k]).argmax(-1) for k in range(draws)], dim=1).flatten(0, 1)
    betas = context.betas.float().repeat_interleave(draws, 0)
    with full_precision(device):
        parts = [
            model.mano(model.tokenizer.decode_codes(chunk), shape).joints_m
            for chunk, shape in zip(ids.split(_HANDS_AT_ONCE), betas.split(_HANDS_AT_ONCE), strict=True)
        ]
    return torch.cat(parts).unflatten(0, (images, draws))


def draw_statistics(drawn_m: Tensor | Array, joints_m: Tensor | Array) -> DrawStatistics:
    """Statistics of sampled joints drawn_m (B, N, 21, 3) relative to reported joints_m (B, 21, 3), both in meters."""
    drawn, reported = _float64(drawn_m), _float64(joints_m)
    finite = np.isfinite(reported).all((1, 2)) & np.isfinite(drawn).all((1, 2, 3))
    drawn, reported = (np.where(finite[(slice(None), *[None] * (x.ndim - 1))], x, 0.0) for x in (drawn, reported))
    distance_mm = 1e3 * np.linalg.norm(_procrustes_align(drawn, reported[:, None]) - reported[:, None], axis=-1)
    missing = ~finite[:, None]
    return DrawStatistics(
        fraction_within=np.where(missing, np.nan, (distance_mm <= WITHIN_MM).mean(1)),
        spread_mm=np.where(missing, np.nan, np.sqrt(np.square(distance_mm).mean(1))),
        draws=drawn.shape[1],
    )


def _procrustes_align(points: Array, target: Array) -> Array:
    """Points (B, N, P, 3) aligned to targets (B, 1, P, 3) by the best scale, rotation (no reflection), translation."""
    center, target_center = (x.mean(-2, keepdims=True) for x in (points, target))
    moved, fixed = points - center, target - target_center
    turned, product = rotate_onto(moved, fixed)
    return np.asarray((product / squared_size(moved))[..., None, None] * turned + target_center)


def _float64(values: Tensor | Array) -> Array:
    return (values.detach().cpu().numpy() if isinstance(values, Tensor) else values).astype(np.float64)


@functools.lru_cache(maxsize=2)
def _noise(draws: int, length: int, codes: int, seed: int, device: torch.device) -> Tensor:
    """(draws, L, V) Gumbel noise, sampled on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return gumbel_noise(torch.Size((draws, length, codes)), generator, torch.device("cpu")).to(device)
