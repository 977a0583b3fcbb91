"""The codebook of VQ-MANO: nearest code, straight-through, EMA updates, periodic resets (paper section 3.1).

The codebook is a buffer updated by EMA statistics, not gradients (T2M-GPT's QuantizeEMAReset). Statistics are summed,
and new codes sampled, over the global batch, so the codebook is the same on every rank and for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

_DISTANCES = {True: 2**19, False: 2**26}
"""Number of distances in memory at once: on a CPU as fits its cache (4 times faster), elsewhere 256 MB."""


@dataclass(frozen=True)
class Quantized:
    """Quantized features and the statistics of their codes."""

    vectors: Tensor
    """(B, L, C) code vectors, with the straight-through gradient."""
    ids: Tensor
    """(B, L) int64."""
    commitment: Tensor
    """() mean squared distance of the inputs to their (detached) codes."""
    perplexity: Tensor
    """() exp(entropy) of the code usage in this batch, in training over all ranks: 1..codebook_size."""
    dead_share: Tensor
    """() fraction of codes that are unused by the EMA statistics."""


class Quantizer(nn.Module):
    """A vector quantizer with an EMA codebook."""

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    updates: Tensor

    def __init__(self, size: int, dim: int, decay: float, reset_every: int, reset_below: float) -> None:
        super().__init__()
        self.decay = decay
        self.reset_every = reset_every
        self.reset_below = reset_below
        self.register_buffer("codebook", torch.zeros(size, dim))
        self.register_buffer("ema_count", torch.ones(size))
        self.register_buffer("ema_sum", torch.zeros(size, dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._updates: int | None = None
        """Copy of `updates` on the host: reading the buffer in every step would synchronize with the device."""

    def nearest(self, z: Tensor) -> Tensor:
        """(..., C) -> (...) int64: index of the nearest code, in fp32 (half precision confuses near neighbors)."""
        with torch.autocast(z.device.type, enabled=False):
            vectors, codebook = z.detach().float().flatten(0, -2), self.codebook.float()
            # |z - c|^2 without |z|^2, which is the same for every code; no temporary but the table of distances
            norms, rows = codebook.square().sum(1), max(1, _DISTANCES[z.device.type == "cpu"] // len(codebook))
            ids = [torch.addmm(norms, part, codebook.T, alpha=-2).argmin(-1) for part in vectors.split(rows)]
            return torch.cat(ids).view(z.shape[:-1])

    def forward(self, z: Tensor) -> Quantized:
        """z (B, L, C). In training mode the codebook is updated after quantization."""
        if self.training and self._updates_done() == 0:
            self._init_codebook(z)
        ids = self.nearest(z)
        codes = self.codebook[ids]
        commitment = (z.float() - codes).square().mean()
        counts = torch.zeros_like(self.ema_count).index_add_(
            0, ids.flatten(), torch.ones_like(ids.flatten(), dtype=torch.float32)
        )
        if self.training:  # not in evaluation, where a rank may run alone and would wait for the others
            counts = _sum_over_ranks(counts)
            self._update(z, ids, counts)
        usage = counts / counts.sum()
        perplexity = torch.exp(-(usage * usage.clamp_min(1e-10).log()).sum())
        dead = (self.ema_count < self._threshold(counts)).float().mean()
        return Quantized(z + (codes - z).detach(), ids, commitment, perplexity, dead)

    def _updates_done(self) -> int:
        if self._updates is None:
            self._updates = int(self.updates)
        return self._updates

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._updates = None

    def _threshold(self, counts: Tensor) -> Tensor:
        """The count below which a code is unused: `reset_below` times that of uniform usage."""
        return self.reset_below * counts.sum() / len(counts)

    @torch.no_grad()
    def _init_codebook(self, z: Tensor) -> None:
        self.codebook.copy_(self._sample_vectors(z))
        self.ema_sum.copy_(self.codebook)

    @torch.no_grad()
    def _update(self, z: Tensor, ids: Tensor, counts: Tensor) -> None:
        vectors = z.detach().float().flatten(0, -2)
        sums = torch.zeros_like(self.ema_sum).index_add_(0, ids.flatten(), vectors)
        self.ema_count.lerp_(counts, 1 - self.decay)
        self.ema_sum.lerp_(_sum_over_ranks(sums), 1 - self.decay)
        self._updates = self._updates_done() + 1
        self.updates += 1
        if self.reset_every and self._updates % self.reset_every == 0:
            dead = self.ema_count < self._threshold(counts)
            # A new code has a small count, so that it moves quickly to its first vectors, but twice the threshold, so
            # that it is not reset again before it gets some, for any batch and codebook size.
            weight = 2 * self._threshold(counts)
            self.ema_sum.copy_(torch.where(dead[:, None], weight * self._sample_vectors(z), self.ema_sum))
            self.ema_count.copy_(torch.where(dead, weight, self.ema_count))
        # A code without vectors does not move: sum and count decay equally, and the clamp avoids 0 / 0.
        alive = self.ema_count > 1e-6
        self.codebook.copy_(
            torch.where(alive[:, None], self.ema_sum / self.ema_count.clamp_min(1e-6)[:, None], self.codebook)
        )

    def _sample_vectors(self, z: Tensor) -> Tensor:
        """Sample V vectors from the global batch, the same on every rank; seeded by the number of updates."""
        vectors = gather_global(z.detach().float()).flatten(0, -2)
        generator = torch.Generator().manual_seed(self._updates_done())
        size = len(self.codebook)
        order = torch.randperm(len(vectors), generator=generator)
        repeats = -(-size // len(vectors))
        drawn = vectors[order.repeat(repeats)[:size].to(vectors.device)]
        if repeats > 1:  # duplicates must differ, or only one of them would ever be the nearest code
            spread = vectors.std(0).nan_to_num(0.0) * 0.01 + 1e-6
            drawn = drawn + spread * torch.randn(drawn.shape, generator=generator).to(drawn.device)
        return drawn


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _sum_over_ranks(x: Tensor) -> Tensor:
    if _world_size() > 1:
        distributed.all_reduce(x)
    return x


def gather_global(z: Tensor) -> Tensor:
    """Gather (B, ...) of each rank into the global batch (world * B, ...): row i of rank r is row r + world * i."""
    if _world_size() == 1:
        return z
    parts = [torch.empty_like(z) for _ in range(_world_size())]
    distributed.all_gather(parts, z.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
