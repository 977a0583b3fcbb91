"""The states of iterative decoding, for visualization: the tokens fixed after each pass, and the hand at that point.

It is separate from `sample`, whose results it does not affect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskhand.batch import HandPrediction, PoseTokens
from maskhand.config import SamplerConfig
from maskhand.models.decoding import decoding_passes
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import decoded_hands
from maskhand.models.vq_mano import full_precision


@dataclass(frozen=True)
class FillInStep:
    """The hands of B images when some tokens are fixed."""

    fixed: Tensor
    """(B, L) bool."""
    hands: HandPrediction
    """Decoded from the codes of the fixed tokens and the expected code vectors of the others. `tokens.ids` is the mask
    id for tokens that are not fixed; `tokens.confidence` as in `DecodingPass`."""


def fill_in_sampler(sampler: SamplerConfig, iterations: int) -> SamplerConfig:
    """The sampler to visualize: the most probable codes, fixed in the order of their confidence, in T iterations."""
    plain = {"iterations": iterations, "temperature": 0.0, "confidence_noise": 0.0, "decode": "codes"}
    return sampler.model_copy(update=plain)


@torch.no_grad()
def fill_in_steps(
    model: MaskedTransformer, context: Context, cfg: SamplerConfig, generator: torch.Generator | None = None
) -> list[FillInStep]:
    """The state before the first pass, where all tokens are masked, and after each pass; the last one is the result of
    `sample` with `decode: codes`."""
    steps: list[FillInStep] = []
    codebook = model.tokenizer.codebook
    for state in decoding_passes(model, context, cfg.model_copy(update={"decode": "codes"}), generator):
        with full_precision(codebook.device):
            expected = state.probability @ codebook
            if not steps:  # the input of the first pass is all masked, so its expectation is the initial state
                nothing = torch.full_like(state.ids, model.mask_id)
                everywhere = torch.ones_like(state.masked)
                steps.append(_step(model, context, nothing, everywhere, state.probability.amax(-1), expected))
            codes = torch.where(state.masked[..., None], expected, state.codes)
            steps.append(_step(model, context, state.ids, state.masked, state.confidence, codes))
    return steps


def _step(
    model: MaskedTransformer, context: Context, ids: Tensor, masked: Tensor, confidence: Tensor, codes: Tensor
) -> FillInStep:
    rotmats, tokens = model.tokenizer.decode_soft(codes), PoseTokens(ids, confidence)
    return FillInStep(~masked, decoded_hands(model, rotmats, context.betas.float(), context.placement.float(), tokens))
