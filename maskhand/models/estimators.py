"""Ways of making one hand of a model's distribution over token sequences, and what they are called.

The mean of the code vectors, all tokens at once (`expectation`, T = 1), minimizes the expected squared distance from
the true code vectors. A schedule that fills in tokens which the model chose itself learns nothing of the image that
the first pass did not know, and adds what was guessed wrong. A hand of drawn codes is one of the hands that the image
allows; more passes make its tokens agree with each other, which is what drawing gains. docs/method.md has the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskhand.config import Recipe, SamplerConfig
from maskhand.models.sampling import schedule


@dataclass(frozen=True)
class Predictor:
    """One way of asking a model for a hand."""

    sampler: SamplerConfig
    name: str
    """For people: `drawn codes, T=5 (4 passes)`."""
    key: str
    """For machines: `drawn_codes_T5`."""
    passes: int
    """How often the transformer is asked."""


def passes(length: int, iterations: int) -> int:
    """Passes of T iterations over strings of `length` tokens: until one of them would keep a token none is made.

    >>> passes(16, 5), passes(64, 5), passes(16, 1)
    (4, 5, 1)
    """
    return sum(remasked < length for remasked in schedule(length, iterations))


def predictor(recipe: Recipe, sampler: SamplerConfig) -> Predictor:
    """What asking the recipe's model by `sampler` is called; a decoder without tokens is called as it is."""
    decoder = recipe.model.decoder
    if decoder != "masked":
        return Predictor(sampler, decoder, decoder, 1)
    made = passes(recipe.tokenizer.num_tokens, sampler.iterations)
    what = _words(sampler)
    times = "" if made == sampler.iterations else f" ({made} {'pass' if made == 1 else 'passes'})"
    key = what.replace(" ", "_").replace(",", "")
    return Predictor(sampler, f"{what}, T={sampler.iterations}{times}", f"{key}_T{sampler.iterations}", made)


def _words(sampler: SamplerConfig) -> str:
    warmth = "" if sampler.temperature in (0.0, 1.0) else f" at {sampler.temperature:g}"
    if sampler.decode == "codes":
        return f"drawn codes{warmth}" if sampler.temperature else "surest codes"
    return sampler.decode + (f" of drawn codes{warmth}" if sampler.temperature else "")


def paper_procedure(sampler: SamplerConfig, iterations: int) -> SamplerConfig:
    """Section 3.4: tokens are drawn, and the hand is made of them."""
    return sampler.model_copy(update={"iterations": iterations, "temperature": 1.0, "decode": "codes"})


def candidates(sampler: SamplerConfig) -> tuple[SamplerConfig, ...]:
    """The estimators that a calibration chooses among, the cheapest first; filters and order are the recipe's."""
    mean = sampler.model_copy(update={"temperature": 0.0, "decode": "expectation"})
    found = (
        mean.model_copy(update={"iterations": 1}),
        mean,
        paper_procedure(sampler, sampler.iterations),
    )
    return tuple(dict.fromkeys(found))
