"""The training loop of VQ-MANO, the pose tokenizer (paper section 3.1, supplement B).

`train` is the whole loop. The engine handles ranks and precision; the trainer state reports, saves and resumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from maskhand.config import Recipe, TokenizerLossConfig, TokenizerTrainConfig
from maskhand.hand.layer import ManoLayer, load_layer
from maskhand.hand.rotations import axis_angle_to_matrix, random_rotations, turn_hands
from maskhand.loading.poses import pose_batches
from maskhand.loading.upright import rest_direction, stand_upright
from maskhand.models.influence import token_influence
from maskhand.models.quantizer import gather_global
from maskhand.models.tokenizer_files import save_tokenizer
from maskhand.models.vq_mano import VQMano
from maskhand.training.engine import start_engine
from maskhand.training.losses import tokenizer_losses
from maskhand.training.seeds import global_slots, make_generator, seed_everything
from maskhand.training.trainer_state import TrainerState
from maskhand.training.worker import WorkerContext

INFLUENCE_HANDS = 128
"""Number of hands between which tokens are swapped to measure their influence on the joints."""

PoseStream = Callable[[int], Iterator[Tensor]]
"""`poses(first_step)` is an endless iterator over this rank's rows of the global batches from that step on: rotmats
(B, 16, 3, 3). Row i of rank r is row r + world * i of the global batch."""


@dataclass(frozen=True)
class TokenizerJob:
    """The arguments of `run`, sent to the workers."""

    recipe: Recipe
    shards_uri: str
    """Location of the shard sets of `recipe.data.pose_sets`, with their `mano` sidecars."""
    mocap: tuple[str, ...] = ()
    """Pose-only npz files (HaMeR's freihand_mocap.npz layout); if given, on average half of every batch."""
    mano_path: str | None = None
    """The hand model file; None: the configured one, or the open hand."""


def run(job: TokenizerJob, worker: WorkerContext) -> dict[str, float]:
    """Train on the shard sets of the recipe; a loop for `cluster.train.fit`."""

    def poses(first_step: int) -> Iterator[Tensor]:
        return pose_batches(
            job.recipe, job.shards_uri, mocap=job.mocap, rank=worker.rank, world=worker.world, start_step=first_step
        )

    return train(job.recipe, load_layer(job.mano_path, job.recipe.hand.layer), poses, worker)


def train(recipe: Recipe, mano: ManoLayer, poses: PoseStream, worker: WorkerContext) -> dict[str, float]:
    """Train for `recipe.tokenizer_training.optim.steps`, resuming if there is a checkpoint; returns the last metrics.

    Every checkpoint holds `export/` with `tokenizer.pt` and `tokenizer.json` (see `models.tokenizer_files`); the
    influence of the tokens on the joints is measured on hands of the first batches.
    """
    settings = recipe.tokenizer_training
    optim = settings.optim
    direction = rest_direction(mano) if recipe.data.upright else None
    seed_everything(recipe.seed)
    tokenizer = VQMano(recipe.tokenizer)
    objective = _Objective(tokenizer, mano, settings.losses)
    # fp32 whatever the recipe's precision: DeepSpeed's bf16 would also communicate the gradients in bf16. No gradient
    # accumulation: the codebook is updated from the whole batch. No ZeRO stage 3: the export needs all weights.
    alike = {"precision": "fp32", "micro_batch": None, "zero_stage": min(recipe.engine.zero_stage, 2)}
    if recipe.engine.offload == "all":
        alike["offload"] = "optimizer"
    engine_config = recipe.engine.model_copy(update=alike)
    engine = start_engine(objective, _parameter_groups(tokenizer, recipe), optim, engine_config, worker.keep)

    def augmented(rotmats: Tensor, step: int) -> Tensor:
        slots = global_slots(optim.batch, worker)
        if direction is not None:
            rotmats = stand_upright(rotmats, direction)
        rotmats = rotate_hands(rotmats, slots, optim.batch, settings, recipe.seed, step)
        return rotmats.to(engine.device, non_blocking=True)

    def first_hands() -> Tensor:
        """(N, 16, 3, 3) augmented training hands, the same on every rank and for any number of ranks."""
        batches = zip(range(math.ceil(INFLUENCE_HANDS / optim.batch)), poses(0), strict=False)
        return torch.cat([gather_global(augmented(rotmats, step)) for step, rotmats in batches])[:INFLUENCE_HANDS]

    def export(folder: Path, steps: int) -> None:
        tokenizer.influence.copy_(token_influence(tokenizer, first_hands()))
        weights = engine.full_state_dict()
        if weights is not None:
            prefix = "tokenizer."
            weights = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
            save_tokenizer(folder, weights, recipe, {"steps": steps, "metrics": state.metrics})

    state = TrainerState(engine, worker, optim, export, export_every=True)
    first = state.resume()
    stream = state.timed(poses(first))
    for step in range(first, optim.steps):
        seed_everything(recipe.seed, step, worker.rank)
        stats = engine.step(step, augmented(next(stream), step))
        state.after_step(step + 1, stats)
    return state.metrics


def rotate_hands(
    rotmats: Tensor, slots: Tensor, global_batch: int, settings: TokenizerTrainConfig, seed: int, step: int
) -> Tensor:
    """Rotation augmentation of hands (B, 16, 3, 3): a fraction by a uniformly random rotation, the others in-plane.

    Image rotation changes the global orientation of the targets, so the tokenizer must be trained on it. The rotations
    depend on the positions `slots` (B,) in the global batch, not on the number of ranks.
    """
    generator = make_generator(seed, step)
    uniform = random_rotations(global_batch, generator)
    is_uniform = torch.rand(global_batch, generator=generator) < settings.random_rotation
    limit_rad = math.radians(settings.inplane_rotation_deg)
    angle_rad = (2 * torch.rand(global_batch, generator=generator) - 1) * limit_rad
    in_plane = axis_angle_to_matrix(angle_rad[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    rotation = torch.where(is_uniform[:, None, None], uniform, in_plane)[slots].to(rotmats.device)
    return turn_hands(rotmats, rotation)


class _Objective(nn.Module):
    """The forward pass and loss of a step: (B, 16, 3, 3) -> loss and stats."""

    def __init__(self, tokenizer: VQMano, mano: ManoLayer, losses: TokenizerLossConfig) -> None:
        super().__init__()
        self.tokenizer, self.mano, self._losses = tokenizer, mano, losses

    def forward(self, rotmats: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.tokenizer(rotmats)
        losses = tokenizer_losses(output, rotmats, self.mano, self._losses)
        stats = losses.scalars() | {"perplexity": output.perplexity, "dead_share": output.dead_share}
        del stats["total"]  # the engine reports it as the loss
        return losses.total, stats


def _parameter_groups(tokenizer: VQMano, recipe: Recipe) -> list[dict]:
    optim = recipe.tokenizer_training.optim
    matrices = [p for p in tokenizer.parameters() if p.ndim > 1]
    vectors = [p for p in tokenizer.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "lr": optim.lr, "weight_decay": optim.weight_decay},
        {"params": vectors, "lr": optim.lr, "weight_decay": 0.0},
    ]
