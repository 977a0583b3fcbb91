"""What a trained network takes its hands from: the same hands with one of its inputs replaced, paired.

    python benchmarks/evidence.py SHARDS/freihand_synth/evaluation --model DIR [--model DIR ...]

Per model, PA-MPJPE in mm of the mean of the distribution (T = 1): with its own inputs; with the picture of the next
hand in the same crop coordinates (its keypoints stay); with a black one; with noise; without keypoints (the crop stays
where the detector put it); with the keypoints of the next hand. Then with tokens fixed in T = 1, 3, 5 iterations: the
most probable ones or drawn ones (mean of --seeds), the hand decoded from them or from their expectations; the best of
32 drawn hands; and the nats that a token of the true pose costs when all are masked.
Intervals: 95 %, bootstrap over hands; differences to the first model's own inputs are paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.loading.loader import EvalRows, eval_range, eval_set
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.models.bundle import ModelBundle
from maskhand.models.confidence import sample_joints
from maskhand.models.estimators import Estimator, named_estimator, paper_procedure
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import predict

DRAWS = 32
NATS = "nats a token, all masked"
Change = Callable[[HandBatch], HandBatch]


def next_picture(batch: HandBatch) -> HandBatch:
    return replace(batch, pixels=batch.pixels.roll(1, 0))


def black(batch: HandBatch) -> HandBatch:
    return replace(batch, pixels=torch.zeros_like(batch.pixels))


def noise(batch: HandBatch) -> HandBatch:
    generator = torch.Generator().manual_seed(0)
    return replace(batch, pixels=torch.randint(256, batch.pixels.shape, generator=generator).byte())


def no_keypoints(batch: HandBatch) -> HandBatch:
    return replace(batch, keypoints_2d=torch.zeros_like(batch.keypoints_2d))


def next_keypoints(batch: HandBatch) -> HandBatch:
    return replace(batch, keypoints_2d=batch.keypoints_2d.roll(1, 0))


CHANGES: dict[str, Change] = {
    "another hand's picture": next_picture,
    "black picture": black,
    "noise for a picture": noise,
    "without keypoints": no_keypoints,
    "another hand's keypoints": next_keypoints,
}


def pa_mm(joints_m: torch.Tensor, batch: HandBatch) -> np.ndarray:
    """(B,) of predicted joints (B, 21, 3)."""
    truth = batch.joints_3d_m.double().numpy()
    aligned = procrustes_align(joints_m.double().numpy(), truth, reflection=False)
    return np.asarray(1e3 * distances(aligned, truth).mean(1))


def nats(model: MaskedTransformer, context: Context, batch: HandBatch) -> np.ndarray:
    """(B,) mean over tokens of -log p(the true token), in the first pass: the width of the distribution counts too."""
    ids = model.tokenizer.encode(batch.rotmats)
    logits = model.logits(torch.full_like(ids, model.mask_id), context)
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids).mean(1).numpy()


def estimators(recipe: Recipe) -> list[Estimator]:
    """Most probable and drawn tokens, hands from codes and from expectations, each in 1, 3 and 5 iterations."""
    samplers = (
        recipe.sampler.model_copy(update={"temperature": temperature, "decode": decode, "iterations": iterations})
        for temperature in (0.0, 1.0)
        for decode in ("expectation", "codes")
        for iterations in (1, 3, 5)
    )
    return [named_estimator(recipe, sampler) for sampler in samplers]


def measure(bundle: ModelBundle, rows: list[EvalRows], seeds: int) -> dict[str, np.ndarray]:
    """Errors (N,) in mm by name of the condition; and `NATS`."""
    model, recipe = bundle.model, bundle.recipe
    mean = recipe.sampler.model_copy(update={"iterations": 1, "temperature": 0.0, "decode": "expectation"})
    found: dict[str, list[np.ndarray]] = {}

    def say(name: str, errors: np.ndarray) -> None:
        found.setdefault(name, []).append(errors)

    for one in rows:
        batch = one.hands
        say("own inputs", pa_mm(predict(model, batch, mean).joints_m, batch))
        for name, change in CHANGES.items():
            say(name, pa_mm(predict(model, change(batch), mean).joints_m, batch))
        if not isinstance(model, MaskedTransformer):
            continue
        for estimator in estimators(recipe):
            errors = [
                pa_mm(predict(model, batch, estimator.sampler, torch.Generator().manual_seed(seed)).joints_m, batch)
                for seed in range(seeds if estimator.sampler.temperature else 1)
            ]
            say(estimator.name, np.mean(errors, axis=0))
        context = model.encode(model.condition(batch), batch.keypoints_2d)
        say(NATS, nats(model, context, batch))
        hands = sample_joints(model, context, DRAWS)
        say(f"best of {DRAWS}, T = 1", np.min([pa_mm(hands[:, k], batch) for k in range(DRAWS)], axis=0))
        drawn = predict(model, batch, paper_procedure(recipe.sampler, 5), torch.Generator().manual_seed(0), DRAWS)
        joints = drawn.joints_m.unflatten(0, (-1, DRAWS))
        say(f"best of {DRAWS}, T = 5", np.min([pa_mm(joints[:, k], batch) for k in range(DRAWS)], axis=0))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of (N,) values, bootstrap."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="shard set with its keypoint sidecar")
    parser.add_argument("--model", action="append", required=True, help="an exported folder; may be given again")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the paper's procedure that are averaged")
    parser.add_argument("--batch", type=int, default=50)
    options = parser.parse_args()
    own = None
    for folder in options.model:
        bundle = ModelBundle.load(folder)
        rows = list(eval_range(bundle.recipe, options.set, 0, len(eval_set(bundle.recipe, options.set)), options.batch))
        with torch.inference_mode():
            errors = measure(bundle, rows, options.seeds)
        own = errors["own inputs"] if own is None else own
        print(f"\n{bundle.recipe.name}, {bundle.recipe.model.decoder}, {folder}: {len(own)} hands")
        if (of_tokens := errors.pop(NATS, None)) is not None:
            low, high = interval(of_tokens)
            print(f"{NATS}: {of_tokens.mean():.3f} ({low:.3f} to {high:.3f})\n")
        print("| condition | PA-MPJPE mm | 95 % | difference, paired | 95 % |\n|---|---|---|---|---|")
        for name, values in errors.items():
            low, high = interval(values)
            d_low, d_high = interval(values - own)
            print(
                f"| {name} | {values.mean():.2f} | {low:.2f} to {high:.2f} | {(values - own).mean():+.2f} | "
                f"{d_low:+.2f} to {d_high:+.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
