"""The DeepSpeed engine: an interface to a model, its optimizer and its ranks. No other module imports DeepSpeed.

    engine = start_engine(objective, parameter_groups, optim, config)
    stats = engine.step(step, *inputs)  # forward, backward, clipped and sharded AdamW update
    engine.save(folder, state); state = engine.load(folder)
    engine.mean(values), engine.sum(values)  # over ranks
    engine.full_state_dict()            # fp32 weights, on rank 0

The objective is a module whose `forward(*inputs)` returns `(loss, stats)`: the weights are only used inside this call,
as mixed precision and ZeRO stage 3 require. With bf16 and fp16 the weights stay fp32 and the operations of the forward
pass are cast (torch autocast), so the exported weights have full precision.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.config import EngineConfig, OptimConfig
from maskhand.training import optimizer_shards as shards
from maskhand.training.divided_weights import held, whole
from maskhand.training.engine_settings import (
    accumulation,
    deepspeed_settings,
    learning_rate_factor,
    sends_in_autocast,
)
from maskhand.training.rank_watch import RankWatch
from maskhand.training.update_guard import UpdateGuard

TAG = "checkpoint"


def start_engine(
    objective: nn.Module,
    parameter_groups: list[dict[str, Any]],
    optim: OptimConfig,
    config: EngineConfig,
    keep: Path | None = None,
) -> Engine:
    """Build a DeepSpeed engine over all ranks of the process group (or a group of one when there is none).

    All ranks must call this, with identically initialized objectives. `parameter_groups`: AdamW's (params, lr,
    weight_decay); parameters in none of them are not trained. keep: see `UpdateGuard`. Raises ValueError if the batch
    does not divide over ranks or a parameter has no dimension, RuntimeError if a GPU is requested and there is none.
    """
    cuda = config.use_gpu and torch.cuda.is_available()
    if config.use_gpu and not cuda:
        raise RuntimeError(
            "engine.use_gpu is true but torch finds no CUDA device; set engine.use_gpu=false to train on CPU"
        )
    if scalars := [name for name, parameter in objective.named_parameters() if parameter.ndim == 0]:
        raise ValueError(
            f"parameters without a dimension cannot be shared over ranks, give them one: {', '.join(scalars)}"
        )
    deepspeed = _import_deepspeed(cuda)
    _join_process_group(deepspeed, cuda)
    world = torch.distributed.get_world_size()
    if config.precision != "fp32" and not sends_in_autocast(config):
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float16
        cast = torch.autocast("cuda" if cuda else "cpu", dtype)
        objective.forward = cast(objective.forward)
    wrapped, *_ = deepspeed.initialize(
        model=objective,
        model_parameters=parameter_groups,
        config=deepspeed_settings(optim, config, world),
        dist_init_required=False,
    )
    guard = UpdateGuard(config.max_skipped, config.precision == "fp16", torch.distributed.get_rank(), keep)
    return Engine(wrapped, optim, guard, accumulation(optim.batch, world, config.micro_batch))


class Engine:
    """A model in training; see `start_engine`."""

    def __init__(self, wrapped: Any, optim: OptimConfig, guard: UpdateGuard, parts: int) -> None:
        self._wrapped = wrapped
        self._optim = optim
        self._guard = guard
        self._parts = parts
        self._norm = 0.0
        self.watch = RankWatch()
        self._stage: int = wrapped.zero_optimization_stage()
        self._names = {parameter: name for name, parameter in wrapped.module.named_parameters()}
        self._base_lr = [group["lr"] for group in wrapped.optimizer.param_groups]
        self.device: torch.device = wrapped.device
        self.rank: int = torch.distributed.get_rank()
        self.world: int = torch.distributed.get_world_size()

    @property
    def objective(self) -> nn.Module:
        return self._wrapped.module

    def step(self, step: int, *inputs: Any) -> dict[str, Tensor]:
        """One update at `step` (0-based, determines the learning rate); returns this rank's loss and stats, detached.

        If the inputs (records and tensors) have more rows than a micro batch, gradients are accumulated over parts.
        Raises NotFiniteError, see `UpdateGuard`, and StuckRankError if another rank does not take part in time.
        """
        with self.watch.waiting(step):
            stats, applied = self._step(step, inputs)
        self._guard.after_step(step, applied, stats["loss"], inputs)
        return stats

    def _step(self, step: int, inputs: Sequence[Any]) -> tuple[dict[str, Tensor], bool]:
        factor = learning_rate_factor(step, self._optim)
        for group, base in zip(self._wrapped.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor
        if self._stage and self._guard.scaled:
            self._wrapped.optimizer.override_loss_scale(self._guard.scale)
        total: dict[str, Tensor] = {}
        for part in range(self._parts):
            mine = [_rows(value, part, self._parts) for value in inputs]
            loss, stats = self._wrapped(*mine)
            if (share := _length(mine) * self._parts / _length(inputs)) != 1:  # parts may differ by a row
                loss, stats = loss * share, {name: value * share for name, value in stats.items()}
            stats = {"loss": loss.detach(), **{name: value.detach() for name, value in stats.items()}}
            total = {name: total[name] + value for name, value in stats.items()} if total else stats
            self._wrapped.backward(loss if self._stage else loss * self._guard.scale)
            if part + 1 < self._parts:
                self._wrapped.step()  # only counts the part
        applied = self._update()
        if self._parts > 1:
            total = {name: value / self._parts for name, value in total.items()}
        return total, applied

    def _update(self) -> bool:
        """Update the weights; returns False, without an update, if the global gradient is not finite (ZeRO checks this
        itself)."""
        if self._stage:
            self._wrapped.step()
            return bool(self._wrapped.was_step_applied())
        gradients = [parameter.grad for parameter in self._names if parameter.grad is not None]
        if self._guard.scaled:
            torch._foreach_mul_(gradients, 1 / self._guard.scale)
        self._norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(self._norm):
            self._wrapped.zero_grad()
            self._wrapped.micro_steps += 1
            return False
        self._wrapped.step()
        return True

    @property
    def skipped(self) -> bool:
        """Whether the last step did not change the weights, because its loss or gradient was not finite."""
        return self._guard.skipped

    def lr(self) -> float:
        """Learning rate of the first parameter group in the last step."""
        return float(self._wrapped.optimizer.param_groups[0]["lr"])

    def grad_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        return float(self._wrapped.get_global_grad_norm() or 0.0) if self._stage else self._norm

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks; every rank must call it."""
        return self.sum(values) / self.world if self.world > 1 else values

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks; every rank must call it."""
        total = values.clone()
        if self.world > 1:
            torch.distributed.all_reduce(total)
        return total

    def save(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Write this rank's part of a checkpoint; every rank must call it, possibly with different folders."""
        shards.write_checkpoint(folder / TAG, self._wrapped, {"guard": self._guard.state(), "state": dict(state)})

    def load(self, folder: Path) -> dict[str, Any]:
        """Read a checkpoint (the files of all its ranks), from any number of ranks and any ZeRO stage.

        Returns its `state`. Raises CheckpointError."""
        found = shards.read_checkpoint(folder / TAG, self._wrapped)
        self._guard.load(found["guard"])
        return found["state"]

    @property
    def divides_weights(self) -> bool:
        """Whether a rank holds a part of each weight (ZeRO stage 3): a forward pass of the objective gathers them."""
        return self._stage == 3

    def full_state_dict(self, everywhere: bool = False) -> dict[str, Tensor] | None:
        """The objective's state on the CPU in fp32 on rank 0, else None; every rank must call it.

        everywhere: on every rank.
        """
        found: dict[str, Tensor] = {}
        parameters = dict(self.objective.named_parameters(remove_duplicate=False))
        for name, value in self.objective.state_dict().items():
            weight = parameters.get(name, value)
            value = whole(weight, held(weight), self.device)
            if everywhere or self.rank == 0:
                found[name] = value.to("cpu", copy=True).contiguous()
        return found if everywhere or self.rank == 0 else None


def _rows(value: Any, part: int, parts: int) -> Any:
    """Every `parts`-th row of a batch or tensor from row `part` on; numbers, and undivided batches, unchanged."""
    return value if parts == 1 or isinstance(value, int | float) else value[part::parts]


def _length(inputs: Sequence[Any]) -> int:
    """Number of rows of inputs, from the first tensor among them."""
    return next(len(value) for value in inputs if isinstance(value, Tensor))


def _import_deepspeed(cuda: bool) -> Any:
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed still calls collectives by deprecated names, which would cause a warning in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    with _without("mlflow"):  # imported by DeepSpeed's autotuner, a second or two in every worker
        import deepspeed
    with _without_compiler():  # ZeRO checks for the Muon optimizer, whose functions are compiled at import
        import deepspeed.runtime.zero.muon.muon_optimizer

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if not cuda:
        # Its shared-memory all-reduce would be compiled now (36 s, needs a compiler); gloo works as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextmanager
def _without(package: str) -> Iterator[None]:
    """A context in which imports of an optional package fail, unless it is loaded already."""
    absent = package not in sys.modules
    if absent:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[package]


@contextmanager
def _without_compiler() -> Iterator[None]:
    """A context in which `torch.compile` returns functions unchanged; loading the compiler takes seconds."""
    original = torch.compile

    def identity(function: Any = None, **_: Any) -> Any:
        return (lambda f: f) if function is None else function

    torch.compile = identity  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = original


def _join_process_group(deepspeed: Any, cuda: bool) -> None:
    """Join the launcher's process group, or create a group of one without opening a port."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    backend = "nccl" if cuda else "gloo"
    if not torch.distributed.is_initialized():
        if int(os.environ["WORLD_SIZE"]) > 1:
            torch.distributed.init_process_group(backend)
        else:
            torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
