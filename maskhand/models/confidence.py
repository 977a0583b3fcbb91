"""How sure is a reported hand of this image? Hands are drawn beside it, from the same encoding, and compared with it.

A token's probability speaks of a code of rotations; people ask how far a joint may be off. So 32 hands are drawn, all
tokens at once (T = 1, temperature 1, no filter), laid over the reported hand, and what their joints do is looked up in
the bundle's calibration. The noise is the same for every hand: a hand's numbers are no matter of its neighbors' or of
its place in a batch.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from maskhand.models.calibration import (
    WITHIN_MM,
    Array,
    Evidence,
    JointConfidence,
    MethodCalibration,
    draw_features,
)
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context, HandNetwork
from maskhand.models.vq_mano import full_precision

DRAWS, SEED = 32, 0
_HANDS_AT_ONCE = 512


@torch.no_grad()
def joint_confidence(
    model: HandNetwork,
    context: Context,
    joints_m: Tensor | Array,
    calibration: MethodCalibration,
    draws: int = DRAWS,
    seed: int = SEED,
) -> JointConfidence:
    """What is to be said of the joints of B reported right hands.

    context: of the B images; joints_m (B, 21, 3) the reported hands, in meters, in any frame (each drawn hand is laid
    over them); calibration: of the method that reported them; draws, seed: the calibration's own.
    """
    return calibration(draw_features(evidence_of(drawn_joints(model, context, draws, seed), joints_m)))


@torch.no_grad()
def drawn_joints(model: HandNetwork, context: Context, draws: int = DRAWS, seed: int = SEED) -> Tensor:
    """(B, draws, 21, 3) meters: joints of hands drawn from the model's distribution at T = 1 and temperature 1.

    ValueError for a network without tokens, which has no distribution.
    """
    if not isinstance(model, MaskedTransformer):
        raise ValueError(f"{type(model).__name__} knows one hand per image; there is no distribution to draw from")
    images, device = len(context.betas), context.betas.device
    masked = torch.full((images, model.num_tokens), model.mask_id, device=device)
    logits = model.logits(masked, context).float()
    noise = _gumbel(draws, model.num_tokens, logits.shape[-1], seed, device)
    ids = torch.stack([(logits + noise[k]).argmax(-1) for k in range(draws)], dim=1).flatten(0, 1)
    betas = context.betas.float().repeat_interleave(draws, 0)
    with full_precision(device):
        parts = [
            model.mano(model.tokenizer.decode_codes(some), shape).joints_m
            for some, shape in zip(ids.split(_HANDS_AT_ONCE), betas.split(_HANDS_AT_ONCE), strict=True)
        ]
    return torch.cat(parts).unflatten(0, (images, draws))


def evidence_of(drawn_m: Tensor | Array, joints_m: Tensor | Array) -> Evidence:
    """drawn_m (B, N, 21, 3) and reported joints_m (B, 21, 3), both in meters -> how the drawn ones lie about them."""
    drawn, reported = _float64(drawn_m), _float64(joints_m)
    known = np.isfinite(reported).all((1, 2)) & np.isfinite(drawn).all((1, 2, 3))
    drawn, reported = (np.where(known[(slice(None), *[None] * (x.ndim - 1))], x, 0.0) for x in (drawn, reported))
    distance_mm = 1e3 * np.linalg.norm(_laid_over(drawn, reported[:, None]) - reported[:, None], axis=-1)
    unknown = ~known[:, None]
    return Evidence(
        share=np.where(unknown, np.nan, (distance_mm <= WITHIN_MM).mean(1)),
        spread_mm=np.where(unknown, np.nan, np.sqrt(np.square(distance_mm).mean(1))),
        draws=drawn.shape[1],
    )


def _laid_over(points: Array, target: Array) -> Array:
    """(B, N, P, 3) moved onto (B, 1, P, 3) by the best scale, rotation (no mirror) and translation."""
    center, target_center = (x.mean(-2, keepdims=True) for x in (points, target))
    moved, fixed = points - center, target - target_center
    u, singular, vt = np.linalg.svd(moved.swapaxes(-1, -2) @ fixed)
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., 2] *= sign[..., None]
    singular[..., 2] *= sign
    size = np.maximum(np.square(moved).sum((-1, -2)), 1e-18)
    scale = (singular.sum(-1) / size)[..., None, None]
    return np.asarray(scale * (moved @ (u @ vt)) + target_center)


def _float64(values: Tensor | Array) -> Array:
    return (values.detach().cpu().numpy() if isinstance(values, Tensor) else values).astype(np.float64)


@functools.lru_cache(maxsize=2)
def _gumbel(draws: int, length: int, codes: int, seed: int, device: torch.device) -> Tensor:
    """(draws, L, V) drawn on the CPU: the same on every device."""
    uniform = torch.rand((draws, length, codes), generator=torch.Generator().manual_seed(seed))
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log().to(device)
