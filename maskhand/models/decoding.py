"""Confidence-guided iterative decoding of a masked token sequence, the most confident tokens first (section 3.4).

The schedule is a list of Python integers, everything else stays on the device: no iteration synchronizes with the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from maskhand.config import SamplerConfig
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.vq_mano import full_precision


def schedule(length: int, iterations: int) -> list[int]:
    """The cosine masking schedule: number of masked tokens after each iteration, ceil(cos(pi/2 t/T) L).

    >>> schedule(64, 5), schedule(64, 3), schedule(64, 1)
    ([61, 52, 38, 20, 0], [56, 32, 0], [0])
    """
    if iterations < 1:
        raise ValueError(f"sampler.iterations is {iterations}; at least 1 iteration is needed")
    # In floats cos(pi/2) is 6e-17 and cos(pi/3) slightly above 0.5: without the 1e-9 both would round up.
    return [math.ceil(math.cos(math.pi / 2 * t / iterations) * length - 1e-9) for t in range(1, iterations + 1)]


@dataclass(frozen=True)
class DecodingPass:
    """R token sequences after a pass of iterative decoding."""

    ids: Tensor
    """(R, L) int64; `mask_id` where a token is masked (again)."""
    masked: Tensor
    """(R, L) bool; none after the last pass."""
    confidence: Tensor
    """(R, L) probability of each token when it was fixed; for a masked token, of the code that this pass chose."""
    codes: Tensor
    """(R, L, C) code vectors of the tokens that are fixed."""
    probability: Tensor
    """(R, L, V) probabilities of the codes in this pass."""


def decoding_passes(
    model: MaskedTransformer,
    context: Context,
    cfg: SamplerConfig,
    generator: torch.Generator | None = None,
    hypotheses: int = 1,
) -> Iterator[DecodingPass]:
    """Iterative decoding (MaskGIT) of B * H sequences, the H of an image consecutive: the state after each pass."""
    images, length = len(context.betas), model.num_tokens
    rows, device = images * hypotheses, context.betas.device
    codebook = model.tokenizer.codebook
    ids = torch.full((rows, length), model.mask_id, device=device)
    confidence = torch.zeros(rows, length, device=device)
    codes = codebook.new_zeros(rows, length, codebook.shape[1])
    masked = torch.ones(rows, length, dtype=torch.bool, device=device)
    all_masked = True
    joints_2d: Tensor | None = None
    for remasked in schedule(length, cfg.iterations):
        if remasked == length:
            continue  # would fix no token: the next iteration starts from the same sequence
        if all_masked:
            # all hypotheses of an image start from the same sequence: compute its logits once
            logits = model.logits(ids[::hypotheses], context).float().repeat_interleave(hypotheses, 0)
        else:
            logits = model.logits(ids, context, joints_2d).float()
        probability = logits.softmax(-1)
        sampled = _sample_codes(logits, cfg, generator)
        token_prob = probability.gather(-1, sampled[..., None]).squeeze(-1)
        ids = torch.where(masked, sampled, ids)
        confidence = torch.where(masked, token_prob, confidence)
        if cfg.decode == "expectation" or (cfg.decode == "mixed" and remasked == 0):
            with full_precision(device):
                vectors = probability @ codebook
        else:
            vectors = codebook[sampled]
        codes = torch.where(masked[..., None], vectors, codes)
        if remasked == 0:
            yield DecodingPass(ids, torch.zeros_like(masked), confidence, codes, probability)
            return
        rank = confidence
        if cfg.confidence_noise:
            # MaskGIT's random order of tokens, annealed over the iterations (valeoai's r_temp * (1 - ratio))
            noise = gumbel_noise(confidence.shape, generator, device)
            rank = confidence.clamp_min(1e-12).log() + cfg.confidence_noise * (remasked / length) * noise
        if not cfg.remask_kept:
            rank = rank.masked_fill(~masked, torch.inf)
        order = rank.argsort(dim=1, stable=True)
        masked = torch.zeros_like(masked).scatter_(1, order[:, :remasked], True)
        ids = ids.masked_fill(masked, model.mask_id)
        all_masked = False
        if model.self_conditioned:
            with full_precision(device):
                expected = torch.where(masked[..., None], probability @ codebook, codes)
            joints_2d = model.project(expected, context)
        yield DecodingPass(ids, masked, confidence, codes, probability)


def _sample_codes(logits: Tensor, cfg: SamplerConfig, generator: torch.Generator | None) -> Tensor:
    """(B, L, V) -> (B, L): the most probable code, or one sampled with temperature, top-k and top-p."""
    if cfg.temperature == 0:
        return logits.argmax(-1)
    logits = filter_logits(logits / cfg.temperature, cfg.top_k, cfg.top_p)
    # The Gumbel-max trick samples from a softmax without a distribution object and its host synchronization.
    return (logits + gumbel_noise(logits.shape, generator, logits.device)).argmax(-1)


def gumbel_noise(shape: torch.Size, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Samples of the standard Gumbel distribution; `generator` must be on `device`."""
    uniform = torch.rand(shape, generator=generator, device=device)
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()


def filter_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Minus infinity outside the `top_k` largest, and outside the smallest set whose probability reaches `top_p`."""
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probability = ordered.softmax(-1)
        excluded = probability.cumsum(-1) - probability >= top_p  # the code that reaches the threshold is kept
        logits = logits.masked_fill(excluded.scatter(-1, order, excluded), -torch.inf)
    return logits
