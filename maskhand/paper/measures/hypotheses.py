"""Several drawn hands for one image against the truth: the best of them, and what can be chosen without knowing it.

`best` is the literature's protocol for methods that draw (the smallest error among N hands): the truth chooses, so it
falls with N whatever the model. `by_score` is what `predict` puts first, the draw nearest to their middle;
`by_log_probability` the hand whose tokens were the most probable when fixed; `mean` the middle itself, the mean of the
joints in the hands' own frames, which is no draw any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from maskhand.arrays import Array
from maskhand.catalog import load_spec
from maskhand.config import Recipe
from maskhand.conventions import Side
from maskhand.evaluation.placed import with_fingertips
from maskhand.evaluation.truth import ground_truth
from maskhand.loading.loader import EvalRows, eval_range
from maskhand.metrics.samples import MIN_ALIGNED, pa_mpjpe
from maskhand.models.consensus import mean_hand
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.paper.measures.request import Request
from maskhand.progress import Progress, silent
from maskhand.shards.reader import ShardSet

COUNTS = (1, 8, 32, 100)
"""Hands drawn for an image; each number is drawn anew."""


@dataclass(frozen=True)
class DrawnErrors:
    """N hands drawn for each of B images; PA-MPJPE in millimeters."""

    each: Array
    """(B, N) of every hand, the best score first."""
    mean: Array
    """(B,) of the mean of their joints."""
    score: Array
    """(B, N)."""
    log_probability: Array
    """(B, N)."""

    @classmethod
    def concatenate(cls, parts: list[DrawnErrors]) -> DrawnErrors:
        return cls(*(np.concatenate([vars(part)[name] for part in parts]) for name in cls.__dataclass_fields__))

    def summary(self) -> dict[str, float]:
        """Means over the images; of several hands also Spearman's rank correlation between each of the two scores and
        minus the error within an image, mean over those images whose hands differ."""
        if self.each.shape[1] == 1:
            return {"pa_mpjpe_mm": float(self.each.mean())}
        likeliest = self.log_probability.argmax(1)
        return {
            "pa_mpjpe_mm": float(self.each.mean()),
            "best_pa_mpjpe_mm": float(self.each.min(1).mean()),
            "by_score_pa_mpjpe_mm": float(self.each[:, 0].mean()),
            "by_log_probability_pa_mpjpe_mm": float(self.each[np.arange(len(self.each)), likeliest].mean()),
            "mean_pa_mpjpe_mm": float(self.mean.mean()),
            "score_rank_correlation": within_images(self.score, self.each),
            "log_probability_rank_correlation": within_images(self.log_probability, self.each),
        }


def within_images(scores: Array, errors: Array) -> float:
    """Spearman's between scores and minus errors (B, N), row by row, and the mean over the rows that vary."""
    rows = [
        spearmanr(score, -error)[0]
        for score, error in zip(scores, errors, strict=True)
        if np.ptp(score) > 0 and np.ptp(error) > 0
    ]
    return float(np.mean(rows)) if rows else np.nan


@torch.inference_mode()
def hypothesis_errors(
    model: MaskedTransformer,
    recipe: Recipe,
    set_uri: str,
    fingertip_vertices: Mapping[Side, str | None],
    progress: Progress = silent,
) -> dict[str, float]:
    """`DrawnErrors.summary` of a shard set, `N8/best_pa_mpjpe_mm` and so on for each of `COUNTS`; drawn by the recipe's
    sampler as `predict --hypotheses` draws.

    fingertip_vertices: as in `runner.evaluate`. Images that cannot be decoded and hands with fewer than `MIN_ALIGNED`
    annotated joints are left out; ValueError when nothing is left.
    """
    device, total = model.mano.weights.device, len(ShardSet.open(set_uri))
    found: dict[int, list[DrawnErrors]] = {count: [] for count in COUNTS}
    seen = 0
    for rows in eval_range(recipe, set_uri, 0, total, recipe.evaluate.batch):
        seen += len(rows.samples)
        usable = ~rows.unreadable & (rows.hands.joints_3d_valid.bool().sum(1) >= MIN_ALIGNED).numpy()
        if usable.any():
            hands = rows.hands.to(device)
            context = model.encode(model.condition(hands), hands.keypoints_2d)
            for count, parts in found.items():
                parts.append(_drawn_errors(model, recipe, context, rows, fingertip_vertices, count, usable))
        progress(seen, total, f"{seen} hands")
    if not found[COUNTS[0]]:
        raise ValueError(f"{set_uri}: no hand has {MIN_ALIGNED} annotated 3D joints to compare with")
    return {
        f"N{count}/{name}": value
        for count, parts in found.items()
        for name, value in DrawnErrors.concatenate(parts).summary().items()
    }


def measure_hypotheses(request: Request) -> dict[str, float]:
    """Of the row's trained model on its set."""
    vertices = load_spec(request.set_name.partition("/")[0]).fingertips
    return hypothesis_errors(request.transformer(), request.recipe, request.set_uri, vertices, request.progress)


def _drawn_errors(
    model: MaskedTransformer,
    recipe: Recipe,
    context: Context,
    rows: EvalRows,
    fingertip_vertices: Mapping[Side, str | None],
    count: int,
    usable: Array,
) -> DrawnErrors:
    seed = np.random.SeedSequence((recipe.seed, rows.samples[0].index, count)).generate_state(1)[0]
    generator = torch.Generator(model.mano.weights.device).manual_seed(int(seed))
    drawn = sample(model, context, hypothesis_sampler(recipe.sampler), generator, count).to("cpu")
    truth = ground_truth(rows.hands, rows.samples, model.mano)
    names = [fingertip_vertices[row.sample.side] for row in rows.samples for _ in range(count)]
    joints = with_fingertips(drawn.joints_m, drawn.vertices_m, names).double().numpy()
    joints = joints.reshape(-1, count, *joints.shape[1:])[usable]
    rotmats = drawn.rotmats.double().unflatten(0, (-1, count))[torch.from_numpy(usable)]
    true, valid = truth.joints_m.double().numpy()[usable], truth.joints_valid.numpy()[usable]

    def error_mm(predicted: Array) -> Array:
        target, seen = (np.repeat(values, len(predicted) // len(true), 0) for values in (true, valid))
        return 1e3 * pa_mpjpe(predicted, target, seen)

    by_image = (drawn.score, drawn.log_probability)
    return DrawnErrors(
        error_mm(joints.reshape(-1, *joints.shape[2:])).reshape(-1, count),
        error_mm(mean_hand(rotmats, torch.from_numpy(joints)).numpy()),
        *(values.double().numpy().reshape(-1, count)[usable] for values in by_image),
    )
