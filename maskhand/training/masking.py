"""The masking of training tokens (paper section 3.3; docs/method.md#evidence-masking).

Every draw is a hash of (seed, step, position in the global batch, counter): a sample's mask does not depend on the
number of ranks, their batch sizes, the device, or interruptions of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from maskhand.config import MaskingConfig


@dataclass(frozen=True)
class CorruptedTokens:
    """The masked token sequences of a batch, and the samples whose conditions are dropped."""

    ids: Tensor
    """(B, L) int64, the input of the model; [MASK] is `codebook_size`."""
    target_ids: Tensor
    """(B, L) int64, the true tokens."""
    masked: Tensor
    """(B, L) bool, the positions of [MASK]."""
    drop_image: Tensor
    """(B,) bool, samples without image condition."""
    drop_pose: Tensor
    """(B,) bool, samples without image and 2D pose."""


def corrupt_tokens(
    ids: Tensor, has_mano: Tensor, cfg: MaskingConfig, codebook_size: int, *, seed: int, step: int, slots: Tensor
) -> CorruptedTokens:
    """Mask the true tokens ids (B, L); all of them if has_mano (B,) is 0 (no MANO label, so no true tokens).

    slots (B,) int64: the position of each sample in the global batch, over all ranks.
    """
    length = ids.shape[1]
    draws = uniform(seed, step, slots.to(ids.device), 3 + 3 * length)
    tau, image, whole = draws[:, 0], draws[:, 1], draws[:, -1]
    order, corruption, code = draws[:, 2:-1].unflatten(1, (3, length)).unbind(1)

    count = mask_count(tau, length, cfg)
    count = torch.where((has_mano > 0) & (whole >= cfg.all_masked), count, length)
    masked = order.argsort(1).argsort(1) < count[:, None]
    random_ids = (code * codebook_size).long()
    visible = torch.where(corruption < cfg.random_token_rate, random_ids, ids)
    drop_image, drop_pose = image < cfg.drop_image, image < cfg.drop_image * cfg.drop_pose_too
    return CorruptedTokens(visible.masked_fill(masked, codebook_size), ids, masked, drop_image, drop_pose)


def mask_count(tau: Tensor, length: int, cfg: MaskingConfig) -> Tensor:
    """Number of masked tokens (B,), at least one, from uniform draws (B,) in [0, 1).

    capped: ceil(L cos(pi/2 tau tau_max)), so L at 0 and, for tau_max 0.7, at least 45.4 %. ratio: ceil(L tau tau_max).
    """
    tau = tau.double() * cfg.tau_max
    ratio = torch.cos(math.pi / 2 * tau) if cfg.tau_reading == "capped" else tau
    return (ratio * length - 1e-9).ceil().long().clamp(1, length)


def uniform(seed: int, step: int, slots: Tensor, count: int) -> Tensor:
    """(B, count) float64 in [0, 1), a pure function of its arguments (splitmix64 of a chain of counters)."""
    # Filled on the device: a copy from the host would synchronize.
    start = torch.full((), seed, dtype=torch.int64, device=slots.device)
    state = _mix(_mix(_mix(start) + step) + slots)
    bits = _mix(state[:, None] + torch.arange(count, device=slots.device) * _GOLDEN)
    return _shift(bits, 11).double() / 2**53


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as a signed 64-bit integer; multiplication wraps alike


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finalizer on int64 (Steele et al. 2014): every input bit flips about half of the output bits."""
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift right; torch's own copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
