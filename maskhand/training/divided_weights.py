"""Weights that ZeRO stage 3 divides among ranks: the values that a rank holds of one, and the whole of it.

Up to stage 2, and for buffers, every rank holds the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def held(weight: Tensor) -> Tensor:
    """The values of this rank: with stage 3 (n,) consecutive ones, padded where the weight ends."""
    part: Tensor | None = getattr(weight, "ds_tensor", None)
    return weight if part is None else part


def whole(weight: Tensor, values: Tensor, device: torch.device) -> Tensor:
    """All values, in the weight's shape, from what each rank has in place of `held(weight)`.

    Every rank must call it. device: of the ranks' exchange.
    """
    if held(weight) is weight:
        return values.detach()
    divided: Any = weight
    mine = values.detach().to(device)
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, mine)
    return torch.cat(parts)[: divided.ds_numel].view(divided.ds_shape)


def share(weight: Tensor, values: Tensor) -> Tensor:
    """What `held` returns for a weight with these whole values."""
    mine = held(weight)
    if mine is weight:
        return values
    start = torch.distributed.get_rank() * mine.numel()
    part = values.reshape(-1)[start : start + mine.numel()]
    return F.pad(part, (0, mine.numel() - part.numel()))
