"""Random draws as a function of (seed, step, ...): checkpoints need no generator state, and workers agree."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from maskhand.training.worker import WorkerContext


def seed_everything(*key: int) -> None:
    """Seed torch's global generators (initial weights, dropout) from a tuple of numbers."""
    torch.manual_seed(_hash_seed(key))


def make_generator(*key: int) -> torch.Generator:
    """A CPU generator seeded from a tuple of numbers."""
    return torch.Generator().manual_seed(_hash_seed(key))


def coin(*key: int) -> bool:
    """A fair coin, a function of a tuple of numbers."""
    return bool(_hash_seed((*key, 2)) & 1)


def global_slots(global_batch: int, worker: WorkerContext) -> Tensor:
    """(global_batch / world,) int64: the positions of this rank's rows in the global batch, rank :: world."""
    return torch.arange(global_batch)[worker.rank :: worker.world]


def _hash_seed(key: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1
