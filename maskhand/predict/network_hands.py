"""The network's outputs for a group of hands: estimate, sampled hypotheses, decoding states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from maskhand.arrays import Array
from maskhand.batch import HandPrediction
from maskhand.config import SamplerConfig
from maskhand.models.bundle import ModelBundle
from maskhand.models.fill_in import fill_in_sampler, fill_in_steps
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.placement import in_image_axes
from maskhand.predict.hand_group import HandGroup, Reconstruction
from maskhand.predict.records import FilledHand, Hypothesis, PredictError


def estimate(bundle: ModelBundle, context: Context, generators: list[torch.Generator]) -> HandPrediction:
    """The network's hands by its estimator; if it samples, each hand has its own generator."""
    sampler = bundle.estimator
    if sampler.temperature == 0 and sampler.confidence_noise == 0:
        return _finite_sample(bundle, context, sampler)
    one_by_one = [
        _finite_sample(bundle, context.of_hand(k), sampler, generator) for k, generator in enumerate(generators)
    ]
    return HandPrediction.join(one_by_one)


def sampled(
    context: Context, group: HandGroup, generator: torch.Generator, reconstruction: Reconstruction
) -> tuple[Hypothesis, ...]:
    """The distinct hypotheses of a group that consists of one hand."""
    bundle = reconstruction.bundle
    assert bundle is not None
    sampler = hypothesis_sampler(bundle.recipe.sampler)
    drawn = _finite_sample(bundle, context, sampler, generator, reconstruction.hypotheses)
    first, counts = distinct_sequences(drawn.tokens.ids.numpy())
    rows = torch.from_numpy(first)
    of_hand = torch.zeros_like(rows)
    repeated = replace(group, batch=group.batch[of_hand], K_px=group.K_px[of_hand.numpy()])
    hands = repeated.placed(in_image_axes(drawn[rows], repeated.batch), reconstruction)
    return tuple(
        Hypothesis(**vars(hand), drawn=int(count), score=score)
        for hand, count, score in zip(hands, counts, drawn.score[rows].tolist(), strict=True)
    )


def filled_in(context: Context, group: HandGroup, reconstruction: Reconstruction) -> list[tuple[FilledHand, ...]]:
    """For each hand of a group, its states during iterative decoding."""
    assert reconstruction.bundle is not None and isinstance(reconstruction.bundle.model, MaskedTransformer)
    sampler = fill_in_sampler(reconstruction.bundle.recipe.sampler, reconstruction.fill_in)
    steps = [
        zip(
            group.placed(in_image_axes(step.hands.to("cpu"), group.batch), reconstruction),
            step.fixed.cpu().numpy(),
            strict=True,
        )
        for step in fill_in_steps(reconstruction.bundle.model, context, sampler)
    ]
    return [
        tuple(FilledHand(**vars(hand), fixed=fixed) for hand, fixed in states) for states in zip(*steps, strict=True)
    ]


def _finite_sample(
    bundle: ModelBundle,
    context: Context,
    sampler: SamplerConfig,
    generator: torch.Generator | None = None,
    hypotheses: int = 1,
) -> HandPrediction:
    """`sample`, moved to the CPU; raises PredictError for values that are not finite."""
    prediction = sample(bundle.model, context, sampler, generator, hypotheses).to("cpu")
    if not bool(prediction.is_finite.all()):
        raise PredictError(f"model {bundle.digest} predicts values that are not finite; train it again")
    return prediction


def distinct_sequences(ids: Array) -> tuple[Array, Array]:
    """(H, L) token sequences -> the index of each distinct sequence's first occurrence, in order, and its count."""
    _, first, counts = np.unique(ids, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]
