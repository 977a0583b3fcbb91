"""Training the masked transformer: guess the hidden pose tokens of an image's hand (paper sections 3.2-3.3).

Read `train`: it is the whole loop. The engine hides ranks and precision, the journal reports, saves and resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model, model_of_weights
from maskhand.models.bundle import ModelBundle
from maskhand.models.network import HandNetwork
from maskhand.models.vq_mano import VQMano
from maskhand.training.checkpoint import load_mano, load_tokenizer
from maskhand.training.engine import start_engine
from maskhand.training.journal import Journal
from maskhand.training.losses import transformer_losses
from maskhand.training.masking import corrupt_tokens
from maskhand.training.seeds import global_slots, seed_everything
from maskhand.training.worker import Worker

BatchStream = Callable[[int], Iterator[HandBatch]]
"""`batches(first_step)` yields, for ever, this rank's rows of the global batches from that step on. Row i of rank r is
row r + world * i of the global batch."""


@dataclass(frozen=True)
class TransformerJob:
    """What `run` needs to know; travels to the workers."""

    recipe: Recipe
    shards_uri: str
    """Where the shard sets of `recipe.data.train` are, with their keypoint and `mano` sidecars."""
    tokenizer_dir: str
    """An exported tokenizer."""
    mano_path: str | None = None
    """The hand model file; None: the one that is configured, or the open hand."""
    assets: str | None = None
    """Folder of fetched files, for encoders whose weights are among them."""


def run(job: TransformerJob, worker: Worker) -> dict[str, float]:
    """Train on the shard sets of the recipe; a loop for `cluster.train.fit`."""
    from maskhand.loading.loader import train_batches

    def batches(first_step: int) -> Iterator[HandBatch]:
        return train_batches(job.recipe, job.shards_uri, rank=worker.rank, world=worker.world, start_step=first_step)

    tokenizer = load_tokenizer(job.tokenizer_dir, expected=job.recipe.tokenizer)
    return train(job.recipe, tokenizer, load_mano(job.mano_path), batches, worker, job.assets)


def train(
    recipe: Recipe,
    tokenizer: VQMano,
    mano: ManoLayer,
    batches: BatchStream,
    worker: Worker,
    assets: str | None = None,
) -> dict[str, float]:
    """Train for `recipe.training.optim.steps`, resuming if there is a checkpoint; returns the last metrics.

    The tokenizer stays as it is. The last checkpoint holds `export/`, a `models.bundle.ModelBundle`.
    """
    optim = recipe.training.optim
    seed_everything(recipe.seed)
    model = build_model(recipe, tokenizer, mano, assets=assets)
    groups = model.parameter_groups(optim.lr, optim.lr_backbone, optim.weight_decay)
    engine = start_engine(TransformerObjective(model, recipe), groups, optim, recipe.engine)

    def export(folder: Path, steps: int) -> None:
        weights = engine.full_state_dict()
        if weights is not None:  # on rank 0
            own = {name.removeprefix("model."): weight for name, weight in weights.items()}
            whole = model_of_weights(recipe, mano, own)
            ModelBundle.save(folder, whole, recipe, {"steps": steps, "metrics": journal.metrics})

    journal = Journal(engine, worker, optim, export)
    first = journal.resume()
    stream = batches(first)
    slots = global_slots(optim.batch, worker).to(engine.device)
    for step in range(first, optim.steps):
        seed_everything(recipe.seed, step, worker.rank)
        batch = next(stream).to(engine.device)
        stats = engine.step(step, batch, slots, step)
        journal.after_step(step + 1, stats)
    return journal.metrics


class TransformerObjective(nn.Module):
    """Everything of a step that touches weights: tokens from the labels, hidden in part, guessed again, and judged.

    Called with a batch, the places `slots` (B,) of its samples in the global batch, and the number of the step; returns
    the loss () and what it is made of.
    """

    def __init__(self, model: HandNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.model, self._recipe = model, recipe

    def forward(self, batch: HandBatch, slots: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        model, settings = self.model, self._recipe.training
        with torch.autocast(batch.pixels.device.type, enabled=False):  # as the tokenizer was trained
            ids = model.tokenizer.encode(batch.rotmats)
        corrupted = corrupt_tokens(
            ids, batch.has_mano, settings.masking, model.mask_id, seed=self._recipe.seed, step=step, slots=slots
        )
        output = model(
            model.condition(batch), batch.keypoints_2d, corrupted.ids, corrupted.drop_image, corrupted.drop_pose
        )
        with torch.autocast(batch.pixels.device.type, enabled=False):  # code expectation, hand and losses in fp32
            losses = transformer_losses(
                output.float(), batch, corrupted, model.tokenizer, model.mano, settings.losses, settings.masking
            )
        stats = losses.scalars()
        del stats["total"]  # the engine reports it as the loss
        return losses.total, stats
