"""The DeepSpeed engine: a model, its optimizer and its ranks behind six methods. No other module imports DeepSpeed.

    engine = start_engine(objective, parameter_groups, optim, config)
    stats = engine.step(step, *inputs)  # forward, backward, clipped and sharded AdamW update
    engine.save(folder, state); state = engine.load(folder)
    engine.mean(values), engine.sum(values)  # over ranks
    engine.full_state_dict()            # fp32 weights, on rank 0

The objective is a module whose `forward(*inputs)` returns `(loss, stats)`: all use of the weights is inside this one
call, as mixed precision requires. With bf16 the weights stay fp32 and the operations of
the forward pass are cast (torch autocast), so that the exported weights are the trained ones at full precision.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.config import EngineConfig, OptimConfig
from maskhand.training import optimizer_shards as shards

TAG, STATE = "checkpoint", "state.pt"


def start_engine(
    objective: nn.Module, parameter_groups: list[dict[str, Any]], optim: OptimConfig, config: EngineConfig
) -> Engine:
    """Build a DeepSpeed engine over all ranks of the process group (or a group of one when there is none).

    All ranks call this, with identically initialized objectives. `parameter_groups` are AdamW's (params, lr,
    weight_decay); what is in none of them is not trained. Raises ValueError when the batch does not divide over ranks
    or a parameter has no dimension, RuntimeError when a GPU is requested and there is none.
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
    wrapped, *_ = deepspeed.initialize(
        model=objective,
        model_parameters=parameter_groups,
        config=_deepspeed_config(optim, config),
        dist_init_required=False,
    )
    return Engine(wrapped, optim)


class Engine:
    """A model in training; see `start_engine`."""

    def __init__(self, wrapped: Any, optim: OptimConfig) -> None:
        self._wrapped = wrapped
        self._optim = optim
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
        """One update at `step` (0-based, decides the learning rate); returns this rank's loss and stats, detached."""
        factor = learning_rate_factor(step, self._optim)
        for group, base in zip(self._wrapped.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor
        loss, stats = self._wrapped(*inputs)
        self._wrapped.backward(loss)
        self._wrapped.step()
        return {"loss": loss.detach(), **{name: value.detach() for name, value in stats.items()}}

    def lr(self) -> float:
        """Learning rate of the first parameter group in the last step."""
        return float(self._wrapped.optimizer.param_groups[0]["lr"])

    def grad_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        return float(self._wrapped.get_global_grad_norm() or 0.0)

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
        """Write this rank's part of a checkpoint; every rank must call it, and folders may differ."""
        (folder / TAG).mkdir(parents=True, exist_ok=True)
        held, optimizer = shards.pieces(self._wrapped, self._names), shards.base_optimizer(self._wrapped)
        if self._stage == 0:  # every rank holds all: each writes a share
            held = held[self.rank :: self.world]
        shards.write_pieces(folder / TAG / f"rank-{self.rank:05d}.pt", held, optimizer)
        if self.rank == 0:
            mine = {
                "ranks": self.world,
                "updates": shards.number_of_updates(optimizer),
                "buffers": self._buffers(),
                "state": dict(state),
            }
            torch.save(mine, folder / TAG / STATE)

    def load(self, folder: Path) -> dict[str, Any]:
        """Read a checkpoint, merged over ranks, of any number of ranks and any ZeRO stage; returns its `state`."""
        if not (folder / TAG / STATE).is_file():
            raise shards.CheckpointError(
                f"{folder}: no checkpoint of this version in this folder; delete the run's folder to start again"
            )
        mine = torch.load(folder / TAG / STATE, map_location="cpu", weights_only=True)
        saved = shards.SavedPieces([folder / TAG / f"rank-{rank:05d}.pt" for rank in range(mine["ranks"])])
        held, optimizer = shards.pieces(self._wrapped, self._names), shards.base_optimizer(self._wrapped)
        self.objective.load_state_dict(mine["buffers"], strict=False)
        for parameter in self._trained():
            if parameter.numel():  # whole on this rank
                saved.fill(parameter.detach().view(-1), self._names[parameter], shards.WEIGHT)
        for piece in held:
            saved.fill(piece.weight, piece.name, shards.WEIGHT, piece.start)
        if mine["updates"]:
            shards.start_moments(optimizer, held, mine["updates"])
            for piece in held:
                for key in shards.MOMENTS:
                    saved.fill(piece.moment(optimizer, key), piece.name, key, piece.start)
        return mine["state"]

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._names if parameter.requires_grad]

    def _buffers(self) -> dict[str, Tensor]:
        """The persistent buffers, on the CPU. Frozen weights are not part of a checkpoint: they are built anew."""
        parameters = set(self._names.values())
        state = self.objective.state_dict().items()
        return {name: value.detach().to("cpu", copy=True) for name, value in state if name not in parameters}

    def full_state_dict(self) -> dict[str, Tensor] | None:
        """The objective's state on the CPU in fp32 on rank 0, else None (up to stage 2 every rank has all weights)."""
        if self.rank != 0:
            return None
        state = self.objective.state_dict()
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Factor on the base learning rate at a 0-based step: linear warm-up, then constant or a cosine down to 1 %."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return 1.0
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def _deepspeed_config(optim: OptimConfig, config: EngineConfig) -> dict[str, Any]:
    world = torch.distributed.get_world_size()
    if optim.batch % world:
        raise ValueError(f"optim.batch={optim.batch} does not divide over engine.workers={world}; choose a multiple")
    adam = {"lr": optim.lr, "betas": [0.9, optim.beta2], "weight_decay": 0.0, "torch_adam": True}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": optim.batch // world,
        "gradient_accumulation_steps": 1,
        "optimizer": {"type": "AdamW", "params": adam},
        "zero_optimization": {"stage": config.zero_stage},
        "gradient_clipping": optim.clip or 0.0,
        "steps_per_print": 10**9,
    }
    if config.precision == "bf16":
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return settings


def _import_deepspeed(cuda: bool) -> Any:
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # DeepSpeed still calls collectives by deprecated names: one warning a step otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    with _without("mlflow"):  # its autotuner would import it, a second or two in every worker
        import deepspeed
    with _without_compiler():  # ZeRO checks for the Muon optimizer, whose functions are compiled at import
        import deepspeed.runtime.zero.muon.muon_optimizer

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if not cuda:
        # Its shared-memory all-reduce would be compiled now (36 s, needs a compiler) and gloo serves as well.
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
