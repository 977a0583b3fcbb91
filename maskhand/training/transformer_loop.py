"""The training loop of the masked transformer and the baselines (paper sections 3.2-3.3).

`train` is the whole loop. The engine handles ranks and precision; the trainer state reports, saves and resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.evaluation.held_out import HeldOutHands, TrainingSet
from maskhand.hand.layer import ManoLayer, load_layer
from maskhand.loading.loader import train_batches
from maskhand.loading.posed_hands import PosedHands
from maskhand.loading.poses import read_pools
from maskhand.models.build import build_model, model_from_weights
from maskhand.models.bundle import ModelBundle
from maskhand.models.initial_weights import load_initial
from maskhand.models.network import HandNetwork
from maskhand.models.tokenizer_files import load_tokenizer
from maskhand.models.vq_mano import VQMano
from maskhand.training.engine import start_engine
from maskhand.training.exported_weights import MODEL, ExportedWeights
from maskhand.training.losses import transformer_losses
from maskhand.training.masking import corrupt_tokens
from maskhand.training.seeds import coin, global_slots, seed_everything
from maskhand.training.trainer_state import TrainerState
from maskhand.training.worker import WorkerContext

BatchStream = Callable[[int], Iterator[HandBatch]]
"""`batches(first_step)` is an endless iterator over this rank's rows of the global batches from that step on. Row i of
rank r is row r + world * i of the global batch."""


@dataclass(frozen=True)
class TransformerJob:
    """The arguments of `run`, sent to the workers."""

    recipe: Recipe
    shards_uri: str
    """Location of the shard sets of `recipe.data.train`, with their keypoint and `mano` sidecars."""
    tokenizer_dir: str
    """Folder of an exported tokenizer."""
    mano_path: str | None = None
    """The hand model file; None: the configured one, or the open hand."""
    assets: str | None = None
    """Folder of downloaded files, for encoders whose weights are among them."""
    held_out: tuple[TrainingSet, ...] = ()
    """The sets of `recipe.data.train`, for validation on their held-out hands."""
    mocap: tuple[str, ...] = ()
    """Pose-only files, as in `TokenizerJob`; for `data.posed_hands`."""


def run(job: TransformerJob, worker: WorkerContext) -> dict[str, float]:
    """Train on the shard sets of the recipe; a loop for `cluster.train.fit`."""
    tokenizer = load_tokenizer(job.tokenizer_dir, expected=job.recipe.tokenizer)
    mano, settings = load_layer(job.mano_path, job.recipe.hand.layer), job.recipe.training
    posed = None
    if job.recipe.data.posed_hands:
        posed = PosedHands(read_pools(job.recipe, job.shards_uri, job.mocap), mano)

    def batches(first_step: int) -> Iterator[HandBatch]:
        rank, world = worker.rank, worker.world
        return train_batches(job.recipe, job.shards_uri, rank=rank, world=world, start_step=first_step, posed=posed)

    hands = None
    if settings.validate_every:
        hands = HeldOutHands.read(job.recipe, job.held_out, mano, settings.validate_hands, worker.rank, worker.world)
    return train(job.recipe, tokenizer, mano, batches, worker, job.assets, hands)


def train(
    recipe: Recipe,
    tokenizer: VQMano,
    mano: ManoLayer,
    batches: BatchStream,
    worker: WorkerContext,
    assets: str | None = None,
    held_out: HeldOutHands | None = None,
) -> dict[str, float]:
    """Train for `recipe.training.optim.steps`, resuming if there is a checkpoint; returns the last metrics.

    The tokenizer is frozen. The last checkpoint contains `export/`, a `models.bundle.ModelBundle` with the last
    weights, their average, or the best ones on the hands `held_out`, see `ExportedWeights`.
    """
    optim = recipe.training.optim
    seed_everything(recipe.seed)
    start = recipe.training.start_from
    model = build_model(recipe, tokenizer, mano, pretrained_backbone=start is None, assets=assets)
    if start is not None:
        load_initial(model, start, assets or "")
    groups = model.parameter_groups(optim.lr, optim.lr_backbone, optim.weight_decay)
    engine = start_engine(TransformerObjective(model, recipe), groups, optim, recipe.engine, worker.keep)

    def built(weights: Mapping[str, Tensor]) -> HandNetwork:
        return model_from_weights(recipe, mano, {name.removeprefix(MODEL): w for name, w in weights.items()})

    def export(folder: Path, steps: int) -> None:
        weights, chosen = engine.full_state_dict(), exported.chosen()
        if weights is not None:  # on rank 0
            weights |= {f"{MODEL}{name}": tensor for name, tensor in chosen.items()}
            facts = {"steps": steps, "metrics": state.metrics, **exported.facts()}
            ModelBundle.save(folder, built(weights), recipe, facts)

    exported = ExportedWeights(engine, model, recipe.training, built, held_out)
    state = TrainerState(engine, worker, optim, export, weights=exported)
    first = state.resume()
    stream = state.timed(batches(first))
    posed_slots = optim.batch + global_slots(recipe.data.posed_hands, worker)
    slots = torch.cat([global_slots(optim.batch, worker), posed_slots]).to(engine.device)
    for step in range(first, optim.steps):
        seed_everything(recipe.seed, step, worker.rank)
        batch = next(stream).to(engine.device)
        stats = engine.step(step, batch, slots, step)
        state.after_step(step + 1, stats)
    return state.metrics


class TransformerObjective(nn.Module):
    """The forward pass and loss of a step: tokenize the labels, mask tokens, predict them, compute the losses.

    Called with a batch, the positions `slots` (B,) of its samples in the global batch, and the step; returns the loss
    () and its terms.
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
        inputs = (batch.keypoints_2d, corrupted.ids, corrupted.drop_image, corrupted.drop_pose)
        # one draw for all rows and ranks, so that a first pass is computed only in steps that use it
        options = {"self_condition": coin(self._recipe.seed, step)} if model.self_conditioned else {}
        output = model(model.condition(batch), *inputs, **options)
        with torch.autocast(batch.pixels.device.type, enabled=False):  # code expectation, hand and losses in fp32
            losses = transformer_losses(
                output.float(), batch, corrupted, model.tokenizer, model.mano, settings.losses, settings.masking
            )
        stats = losses.scalars()
        del stats["total"]  # the engine reports it as the loss
        return losses.total, stats
