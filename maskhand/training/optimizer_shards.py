"""What a rank holds of the trained weights and of AdamW's moments, by parameter and position.

ZeRO cuts them at places that depend on the number of ranks and on its stage. A checkpoint therefore keeps, in a file a
rank, runs of elements of named parameters; a rank of another world, or of another stage, takes from all files what it
holds itself. Nothing is sent between ranks, and equal cuts are read back bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.errors import MaskhandError

MOMENTS = ("exp_avg", "exp_avg_sq")
WEIGHT = "weight"


class CheckpointError(MaskhandError, ValueError):
    """A checkpoint that does not hold what the run needs; the message names the folder."""


@dataclass(frozen=True)
class Piece:
    """A run of consecutive elements of one flattened parameter, as the optimizer of this rank holds it."""

    name: str
    start: int
    """Position of the first element in the parameter."""
    owner: Tensor
    """The parameter of the optimizer that they are part of, fp32."""
    offset: int
    """Position of the first element in `owner`."""
    count: int
    """Number of elements."""

    @property
    def weight(self) -> Tensor:
        """(count,) view."""
        return self._cut(self.owner)

    def moment(self, optimizer: torch.optim.Optimizer, key: str) -> Tensor:
        """(count,) view of one of `MOMENTS`; KeyError before the first update."""
        return self._cut(optimizer.state[self.owner][key])

    def _cut(self, whole: Tensor) -> Tensor:
        return whole.detach().view(-1).narrow(0, self.offset, self.count)


def pieces(wrapped: Any, names: Mapping[nn.Parameter, str]) -> list[Piece]:
    """What this rank holds. wrapped: a DeepSpeed engine; without ZeRO every rank holds all."""
    stage = wrapped.zero_optimization_stage()
    if stage == 0:
        groups = wrapped.optimizer.param_groups
        return [Piece(names[p], 0, p, 0, p.numel()) for group in groups for p in group["params"]]
    return list(_cut_by_stage_3(wrapped, names) if stage == 3 else _cut_by_stage_1_and_2(wrapped, names))


def _cut_by_stage_1_and_2(wrapped: Any, names: Mapping[nn.Parameter, str]) -> Iterator[Piece]:
    zero = wrapped.optimizer
    for group, owner in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        for parameter in group:
            if (here := parameter._hp_mapping) is not None:  # None: other ranks hold it
                start, at = here.lp_fragment_address.start, here.hp_fragment_address
                yield Piece(names[parameter], start, owner, at.start, at.numel)


def _cut_by_stage_3(wrapped: Any, names: Mapping[nn.Parameter, str]) -> Iterator[Piece]:
    zero = wrapped.optimizer
    rank = torch.distributed.get_rank()
    for group in zero.fp16_groups:
        for parameter in group:
            number, offset, size = zero.grad_position[zero.get_param_id(parameter)]
            start = rank * size  # the last ranks' parts are padded
            count = min(size, parameter.ds_numel - start)
            if count > 0:
                yield Piece(names[parameter], start, zero.fp32_partitioned_groups_flat[number], offset, count)


def base_optimizer(wrapped: Any) -> torch.optim.Optimizer:
    """AdamW itself, under ZeRO's optimizer where there is one."""
    return wrapped.optimizer.optimizer if wrapped.zero_optimization_stage() else wrapped.optimizer


def number_of_updates(optimizer: torch.optim.Optimizer) -> int:
    """How many updates AdamW has made, the count of its bias correction; it is the same for all parameters."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


def start_moments(optimizer: torch.optim.Optimizer, held: Sequence[Piece], updates: int) -> None:
    """Give the owners of the pieces a state of AdamW after so many updates, with moments of zero."""
    for owner in {piece.owner for piece in held}:
        optimizer.state[owner] = {
            "step": torch.tensor(float(updates)),
            **{key: torch.zeros_like(owner, memory_format=torch.preserve_format) for key in MOMENTS},
        }


def write_pieces(path: Path, held: Sequence[Piece], optimizer: torch.optim.Optimizer) -> None:
    """Write what `pieces` gave to a file, with the moments once there are any."""
    keys = MOMENTS if number_of_updates(optimizer) else ()
    torch.save(
        {
            piece.name: {
                "start": piece.start,
                WEIGHT: piece.weight.to("cpu", copy=True),
                **{key: piece.moment(optimizer, key).to("cpu", copy=True) for key in keys},
            }
            for piece in held
        },
        path,
    )


class SavedPieces:
    """The files of all ranks of a checkpoint; elements are read from disk when they are copied."""

    def __init__(self, files: Sequence[Path]) -> None:
        if not files:
            raise CheckpointError("a checkpoint without a rank's file")
        self._folder = files[0].parent
        self._ranks = [torch.load(file, map_location="cpu", weights_only=True, mmap=True) for file in files]

    def fill(self, target: Tensor, name: str, key: str, start: int = 0) -> None:
        """Copy elements `start`, start + 1, ... of a parameter into `target` (n,); key: `WEIGHT` or one of `MOMENTS`.

        Raises CheckpointError when not all of them are there.
        """
        filled, stop = 0, start + target.numel()
        for rank in self._ranks:
            if (saved := rank.get(name)) is None or key not in saved:
                continue
            first = max(start, saved["start"])
            last = min(stop, saved["start"] + saved[key].numel())
            if first < last:
                source = saved[key].narrow(0, first - saved["start"], last - first)
                target.narrow(0, first - start, last - first).copy_(source)
                filled += last - first
        if filled != target.numel():
            raise CheckpointError(
                f"{self._folder}: it holds {filled} of the {target.numel()} elements wanted of {name} ({key}); delete "
                "this checkpoint, and the one before it is used, or the run's folder, to start again"
            )
