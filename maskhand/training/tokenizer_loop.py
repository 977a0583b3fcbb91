"""Training VQ-MANO: poses in, the same poses out, through a codebook (paper section 3.1, supplement B).

Read `train`: it is the whole loop. The engine hides ranks and precision, the journal reports, saves and resumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from maskhand.config import Recipe, TokenizerLossConfig, TokenizerTrainConfig
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix, random_rotations
from maskhand.models.influence import token_influence
from maskhand.models.quantizer import gather_global
from maskhand.models.vq_mano import VQMano
from maskhand.training.checkpoint import load_mano, save_tokenizer
from maskhand.training.engine import start_engine
from maskhand.training.journal import Journal
from maskhand.training.losses import tokenizer_losses
from maskhand.training.seeds import generator_of, global_slots, seed_everything
from maskhand.training.worker import Worker

INFLUENCE_HANDS = 128
"""Between which tokens are swapped to see which joints they speak of."""

PoseStream = Callable[[int], Iterator[Tensor]]
"""`poses(first_step)` yields, for ever, this rank's rows of the global batches from that step on: rotmats
(B, 16, 3, 3). Row i of rank r is row r + world * i of the global batch."""


@dataclass(frozen=True)
class TokenizerJob:
    """What `run` needs to know; travels to the workers."""

    recipe: Recipe
    shards_uri: str
    """Where the shard sets of `recipe.data.pose_sets` are, with their `mano` sidecars."""
    mocap: tuple[str, ...] = ()
    """Pose-only npz files (HaMeR's freihand_mocap.npz layout), half of every batch when there are any."""
    mano_path: str | None = None
    """The hand model file; None: the one that is configured, or the open hand."""


def run(job: TokenizerJob, worker: Worker) -> dict[str, float]:
    """Train on the shard sets of the recipe; a loop for `cluster.train.fit`."""
    from maskhand.loading.poses import pose_batches

    def poses(first_step: int) -> Iterator[Tensor]:
        return pose_batches(
            job.recipe, job.shards_uri, mocap=job.mocap, rank=worker.rank, world=worker.world, start_step=first_step
        )

    return train(job.recipe, load_mano(job.mano_path, job.recipe.hand.layer), poses, worker)


def train(recipe: Recipe, mano: ManoLayer, poses: PoseStream, worker: Worker) -> dict[str, float]:
    """Train for `recipe.tokenizer_training.optim.steps`, resuming if there is a checkpoint; returns the last metrics.

    Every checkpoint holds `export/` with `tokenizer.pt` and `tokenizer.json` (see `checkpoint.load_tokenizer`), and in
    the former which joints each token speaks of, measured on hands of the first batches.
    """
    settings = recipe.tokenizer_training
    optim = settings.optim
    seed_everything(recipe.seed)
    tokenizer = VQMano(recipe.tokenizer)
    objective = _Objective(tokenizer, mano, settings.losses)
    # fp32 whatever the recipe's precision: DeepSpeed's bf16 would also send the gradients so
    engine_config = recipe.engine.model_copy(update={"precision": "fp32"})
    engine = start_engine(objective, _parameter_groups(tokenizer, recipe), optim, engine_config)

    def turned(rotmats: Tensor, step: int) -> Tensor:
        slots = global_slots(optim.batch, worker)
        rotmats = turn_hands(rotmats, slots, optim.batch, settings, recipe.seed, step)
        return rotmats.to(engine.device, non_blocking=True)

    def first_hands() -> Tensor:
        """(N, 16, 3, 3) as trained on, the same on every rank and for any number of them."""
        batches = zip(range(math.ceil(INFLUENCE_HANDS / optim.batch)), poses(0), strict=False)
        return torch.cat([gather_global(turned(rotmats, step)) for step, rotmats in batches])[:INFLUENCE_HANDS]

    def export(folder: Path, steps: int) -> None:
        tokenizer.influence.copy_(token_influence(tokenizer, first_hands()))
        weights = engine.full_state_dict()
        if weights is not None:
            own = {name.removeprefix("tokenizer."): w for name, w in weights.items() if name.startswith("tokenizer.")}
            save_tokenizer(folder, own, recipe, {"steps": steps, "metrics": journal.metrics})

    journal = Journal(engine, worker, optim, export, every=True)
    first = journal.resume()
    stream = poses(first)
    for step in range(first, optim.steps):
        seed_everything(recipe.seed, step, worker.rank)
        stats = engine.step(step, turned(next(stream), step))
        journal.after_step(step + 1, stats)
    return journal.metrics


def turn_hands(
    rotmats: Tensor, slots: Tensor, global_batch: int, settings: TokenizerTrainConfig, seed: int, step: int
) -> Tensor:
    """Turn whole hands (B, 16, 3, 3): a share by a uniformly random rotation, the others in the image plane.

    Image rotation turns the global orientation of the targets, so the tokenizer must have seen such turns. The turns
    belong to the places `slots` (B,) in the global batch, whatever the number of ranks.
    """
    generator = generator_of(seed, step)
    anywhere = random_rotations(global_batch, generator)
    chosen = torch.rand(global_batch, generator=generator) < settings.random_rotation
    limit_rad = math.radians(settings.inplane_rotation_deg)
    angle_rad = (2 * torch.rand(global_batch, generator=generator) - 1) * limit_rad
    in_plane = axis_angle_to_matrix(angle_rad[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    turn = torch.where(chosen[:, None, None], anywhere, in_plane)[slots].to(rotmats.device)
    return torch.cat((turn[:, None] @ rotmats[:, :1], rotmats[:, 1:]), dim=1)


class _Objective(nn.Module):
    """Everything of a step that touches weights: (B, 16, 3, 3) -> loss and stats."""

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
