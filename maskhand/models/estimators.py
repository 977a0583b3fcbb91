"""Point estimators of a hand from the model's distribution over token sequences, and their names.

The mean of the code vectors, all tokens at once (`expectation`, T = 1), minimizes the expected squared distance to the
true code vectors. Further iterations, conditioned on the model's own tokens, add no information about the image, only
the errors of these tokens. A hand decoded from sampled codes is one of those that the image allows; more passes make
its tokens consistent with each other, which is their benefit for sampling. docs/claims.md has the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskhand.config import Recipe, SamplerConfig
from maskhand.models.decoding import schedule


@dataclass(frozen=True)
class Estimator:
    """A point estimator: sampler settings with names."""

    sampler: SamplerConfig
    name: str
    """Label in tables: `drawn codes, T=5 (4 passes)`."""
    key: str
    """Identifier: `drawn_codes_T5`."""
    passes: int
    """Number of forward passes of the transformer."""


def passes(length: int, iterations: int) -> int:
    """Number of forward passes of T iterations over `length` tokens: iterations that would keep no token are skipped.

    >>> passes(16, 5), passes(64, 5), passes(16, 1)
    (4, 5, 1)
    """
    return sum(remasked < length for remasked in schedule(length, iterations))


def named_estimator(recipe: Recipe, sampler: SamplerConfig) -> Estimator:
    """The estimator of the recipe's model with `sampler`; a baseline without tokens is named by its decoder."""
    decoder = recipe.model.decoder
    if decoder != "masked":
        return Estimator(sampler, decoder, decoder, 1)
    count = passes(recipe.tokenizer.num_tokens, sampler.iterations)
    label = _label(sampler)
    times = "" if count == sampler.iterations else f" ({count} {'pass' if count == 1 else 'passes'})"
    key = label.replace(" ", "_").replace(",", "")
    return Estimator(sampler, f"{label}, T={sampler.iterations}{times}", f"{key}_T{sampler.iterations}", count)


def _label(sampler: SamplerConfig) -> str:
    temperature = "" if sampler.temperature in (0.0, 1.0) else f" at {sampler.temperature:g}"
    if sampler.decode == "codes":
        return f"drawn codes{temperature}" if sampler.temperature else "most probable codes"
    return sampler.decode + (f" of drawn codes{temperature}" if sampler.temperature else "")


def paper_procedure(sampler: SamplerConfig, iterations: int) -> SamplerConfig:
    """The paper's sampling (section 3.4): tokens are drawn, and the hand is decoded from them."""
    return sampler.model_copy(update={"iterations": iterations, "temperature": 1.0, "decode": "codes"})


def candidates(sampler: SamplerConfig) -> tuple[SamplerConfig, ...]:
    """The estimators that a calibration selects from, the cheapest first; other settings are taken from `sampler`."""
    mean = sampler.model_copy(update={"temperature": 0.0, "decode": "expectation"})
    found = (
        mean.model_copy(update={"iterations": 1}),
        mean,
        paper_procedure(sampler, sampler.iterations),
    )
    return tuple(dict.fromkeys(found))
