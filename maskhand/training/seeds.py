"""Randomness as a function of (seed, step, place): no state to keep in a checkpoint, no matter who computes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from maskhand.training.worker import Worker


def seed_everything(*place: int) -> None:
    """Seed torch's global generators (initial weights, dropout) from a tuple of numbers."""
    torch.manual_seed(_mixed(place))


def generator_of(*place: int) -> torch.Generator:
    """A CPU generator seeded from a tuple of numbers."""
    return torch.Generator().manual_seed(_mixed(place))


def global_slots(global_batch: int, worker: Worker) -> Tensor:
    """(global_batch / world,) int64: the places of this rank's rows in the global batch, rank :: world."""
    return torch.arange(worker.rank, global_batch, worker.world)


def _mixed(place: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:8]) >> 1
