"""A rank's part of the trained weights and AdamW moments, by parameter and position.

How ZeRO partitions them depends on the number of ranks and on its stage. A checkpoint therefore has a file per rank
with runs of elements of named parameters; when the number of ranks or the stage has changed, a rank reads its elements
from all files. Nothing is sent between ranks, and with equal partitions the values are restored bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.errors import MaskhandError

MOMENTS = ("exp_avg", "exp_avg_sq")
WEIGHT = "weight"
STATE = "state.pt"


class CheckpointError(MaskhandError, ValueError):
    """A checkpoint that lacks something the run needs; the message names the folder."""


@dataclass(frozen=True)
class Piece:
    """A run of consecutive elements of one flattened parameter, as the optimizer of this rank holds it."""

    name: str
    start: int
    """Position of the first element in the parameter."""
    owner: Tensor
    """The optimizer's fp32 parameter that contains the elements."""
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


def write_checkpoint(folder: Path, wrapped: Any, more: Mapping[str, Any]) -> None:
    """Write this rank's file `rank-NNNNN.pt`, and on rank 0 `state.pt`: buffers, and `more` (plain values, tensors).

    wrapped: a DeepSpeed engine. Frozen weights are not part of a checkpoint: they are rebuilt on resume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    held, optimizer = pieces(wrapped), base_optimizer(wrapped)
    if wrapped.zero_optimization_stage() == 0:  # every rank holds everything: each writes a share
        held = held[rank::world]
    _write_pieces(folder / _of_rank(rank), held, optimizer)
    if rank == 0:
        parameters = {name for name, _ in wrapped.module.named_parameters(remove_duplicate=False)}
        state = wrapped.module.state_dict().items()
        buffers = {name: value.detach().to("cpu", copy=True) for name, value in state if name not in parameters}
        about = {"ranks": world, "updates": _number_of_updates(optimizer), "buffers": buffers}
        torch.save(about | dict(more), folder / STATE)


def read_checkpoint(folder: Path, wrapped: Any) -> dict[str, Any]:
    """Load this rank's part of a checkpoint; returns the content of `state.pt`, with `more`. Raises CheckpointError."""
    if not (folder / STATE).is_file():
        raise CheckpointError(
            f"{folder}: no checkpoint of this version in this folder; delete the run's folder to start again"
        )
    found = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    saved = SavedPieces([folder / _of_rank(rank) for rank in range(found["ranks"])])
    held, optimizer = pieces(wrapped), base_optimizer(wrapped)
    wrapped.module.load_state_dict(found["buffers"], strict=False)
    for piece in held:
        saved.fill(piece.weight, piece.name, WEIGHT, piece.start)
    for name, start, values in _used_in_forward(wrapped):
        saved.fill(values, name, WEIGHT, start)
    if found["updates"]:
        _start_moments(optimizer, held, found["updates"])
        for piece in held:
            for key in MOMENTS:
                saved.fill(piece.moment(optimizer, key), piece.name, key, piece.start)
    return found


def pieces(wrapped: Any) -> list[Piece]:
    """The pieces that this rank holds; without ZeRO every rank holds everything."""
    names, stage, optimizer = _names(wrapped), wrapped.zero_optimization_stage(), wrapped.optimizer
    if stage == 3:
        return list(_cut_by_stage_3(optimizer, names))
    if stage:
        return list(_cut_by_stage_1_and_2(optimizer, names))
    return [Piece(names[p], 0, p, 0, p.numel()) for group in optimizer.param_groups for p in group["params"]]


def _cut_by_stage_1_and_2(zero: Any, names: Mapping[nn.Parameter, str]) -> Iterator[Piece]:
    for group, owner in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        for parameter in group:
            if (here := parameter._hp_mapping) is not None:  # None: other ranks hold it
                start, at = here.lp_fragment_address.start, here.hp_fragment_address
                yield Piece(names[parameter], start, owner, at.start, at.numel)


def _cut_by_stage_3(zero: Any, names: Mapping[nn.Parameter, str]) -> Iterator[Piece]:
    for parameter in itertools.chain.from_iterable(zero.fp16_groups):
        number, offset, size = zero.grad_position[zero.get_param_id(parameter)]
        start = torch.distributed.get_rank() * size
        if (count := min(size, parameter.ds_numel - start)) > 0:  # the parts of the last ranks are padded
            yield Piece(names[parameter], start, zero.fp32_partitioned_groups_flat[number], offset, count)


def _used_in_forward(wrapped: Any) -> Iterator[tuple[str, int, Tensor]]:
    """Name, first element, and values (n,) of the trained weights that the forward pass reads on this rank; with ZeRO
    they are separate from the optimizer's."""
    names, stage, optimizer = _names(wrapped), wrapped.zero_optimization_stage(), wrapped.optimizer
    if stage == 3:
        for parameter in itertools.chain.from_iterable(optimizer.fp16_groups):
            start = torch.distributed.get_rank() * parameter.ds_tensor.numel()
            if (count := min(parameter.ds_tensor.numel(), parameter.ds_numel - start)) > 0:
                yield names[parameter], start, parameter.ds_tensor.detach().view(-1)[:count]
    elif stage:
        for parameter in itertools.chain.from_iterable(optimizer.bit16_groups):
            yield names[parameter], 0, parameter.detach().view(-1)


def _names(wrapped: Any) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in wrapped.module.named_parameters()}


def base_optimizer(wrapped: Any) -> torch.optim.Optimizer:
    """AdamW itself, unwrapped from ZeRO's optimizer if there is one."""
    return wrapped.optimizer.optimizer if wrapped.zero_optimization_stage() else wrapped.optimizer


def _number_of_updates(optimizer: torch.optim.Optimizer) -> int:
    """Number of AdamW updates so far, as used in its bias correction; the same for all parameters."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


def _start_moments(optimizer: torch.optim.Optimizer, held: Sequence[Piece], updates: int) -> None:
    """Initialize AdamW's state of the pieces' owners: this number of updates, and moments of zero."""
    for owner in {piece.owner for piece in held}:
        optimizer.state[owner] = {
            "step": torch.tensor(float(updates)),
            **{key: torch.zeros_like(owner, memory_format=torch.preserve_format) for key in MOMENTS},
        }


def _write_pieces(path: Path, held: Sequence[Piece], optimizer: torch.optim.Optimizer) -> None:
    """Write the pieces to a file, with their moments once there are any."""
    keys = MOMENTS if _number_of_updates(optimizer) else ()
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


def _of_rank(rank: int) -> str:
    return f"rank-{rank:05d}.pt"


class SavedPieces:
    """The files of all ranks of a checkpoint, memory-mapped: elements are read from disk when they are copied."""

    def __init__(self, files: Sequence[Path]) -> None:
        if not files:
            raise CheckpointError("a checkpoint without a rank's file")
        self._folder = files[0].parent
        self._ranks = [torch.load(file, map_location="cpu", weights_only=True, mmap=True) for file in files]

    def fill(self, target: Tensor, name: str, key: str, start: int = 0) -> None:
        """Copy elements `start`, `start` + 1, ... of a parameter into `target` (n,); key: `WEIGHT` or one of `MOMENTS`.

        Raises CheckpointError if some of them are missing.
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
