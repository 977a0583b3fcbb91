"""DeepSpeed's settings and the learning rate schedule of a recipe."""

from __future__ import annotations

import math
from typing import Any

from maskhand.config import EngineConfig, OptimConfig

_CAST = (
    "torch.nn.Linear",
    "torch.nn.Conv1d",
    "torch.nn.Conv2d",
    "torch.nn.Conv3d",
    "maskhand.models.deformable.ValueProjection",
)
"""Classes of layers whose gradients are communicated in autocast precision: DeepSpeed's own list, and ours."""


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Factor on the base learning rate at a 0-based step: linear warm-up, then constant or a cosine down to 1 %."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return 1.0
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def accumulation(batch: int, world: int, micro_batch: int | None) -> int:
    """Number of gradient accumulation steps: the fewest equal parts of a rank's rows with at most `micro_batch` rows.
    Hands that are added to the batch (`data.posed_hands`) are distributed over the parts.

    The losses are means over samples, so the mean over parts is that of the whole batch. Raises ValueError if the batch
    does not divide over the ranks.
    """
    if batch % world:
        raise ValueError(f"optim.batch={batch} does not divide over engine.workers={world}; choose a multiple")
    rows = batch // world
    most = rows if micro_batch is None else min(micro_batch, rows)
    return next(parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= most)


def deepspeed_settings(optim: OptimConfig, config: EngineConfig, world: int) -> dict[str, Any]:
    """The configuration of `deepspeed.initialize` for a group of `world` ranks."""
    parts = accumulation(optim.batch, world, config.micro_batch)
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if config.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    if config.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = 0  # every weight stays partitioned between steps, also small ones
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": optim.batch // world // parts,
        "gradient_accumulation_steps": parts,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": optim.lr, "betas": [0.9, optim.beta2], "weight_decay": 0.0, "torch_adam": True},
        },
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's AdamW for CPUs would be compiled at the first start
        "gradient_clipping": optim.clip or 0.0,
        "steps_per_print": 10**9,
    }
    if sends_in_autocast(config):
        settings["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": list(_CAST),
        }
    return settings


def sends_in_autocast(config: EngineConfig) -> bool:
    """Whether DeepSpeed's autocast is used, which also communicates gradients in the lower precision. Not for fp16:
    DeepSpeed (0.19) clips its scaled gradients wrongly and does not lower the scale after an overflow, so we scale."""
    return config.precision == "bf16" and config.gradients == "autocast"
