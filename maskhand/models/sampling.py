"""Confidence-guided iterative decoding of a masked token sequence, the most confident tokens first (section 3.4).

The schedule is a list of Python integers, everything else stays on the device: no iteration synchronizes with the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskhand.batch import POSE_CHANNELS, HandBatch, HandPrediction, PoseTokens
from maskhand.config import SamplerConfig
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.camera import project_crop
from maskhand.models.consensus import consensus
from maskhand.models.influence import joint_from_tokens
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context, HandNetwork
from maskhand.models.shape_camera_head import place_camera
from maskhand.models.vq_mano import full_precision

MAX_SEQUENCES = 512
"""Maximum number of token sequences decoded together; with 64 tokens and 2048 codes, the logits of one are 0.5 MB."""


def schedule(length: int, iterations: int) -> list[int]:
    """The cosine masking schedule: number of masked tokens after each iteration, ceil(cos(pi/2 t/T) L).

    >>> schedule(64, 5), schedule(64, 3), schedule(64, 1)
    ([61, 52, 38, 20, 0], [56, 32, 0], [0])
    """
    if iterations < 1:
        raise ValueError(f"sampler.iterations is {iterations}; at least 1 iteration is needed")
    # In floats cos(pi/2) is 6e-17 and cos(pi/3) slightly above 0.5: without the 1e-9 both would round up.
    return [math.ceil(math.cos(math.pi / 2 * t / iterations) * length - 1e-9) for t in range(1, iterations + 1)]


@torch.no_grad()
def predict(
    model: HandNetwork,
    batch: HandBatch,
    cfg: SamplerConfig,
    generator: torch.Generator | None = None,
    hypotheses: int = 1,
    *,
    drop_image: Tensor | None = None,
    drop_pose: Tensor | None = None,
) -> HandPrediction:
    """Encode the batch's images (or texts) and sample; see `sample`.

    drop_image, drop_pose (B,) bool: samples whose image, or 2D pose, is dropped.
    """
    context = model.encode(model.condition(batch), batch.keypoints_2d, drop_image=drop_image, drop_pose=drop_pose)
    return sample(model, context, cfg, generator, hypotheses)


@torch.no_grad()
def generate(model: MaskedTransformer, count: int, cfg: SamplerConfig, generator: torch.Generator) -> HandPrediction:
    """Unconditional generation: `count` hands of the mean shape without image and 2D pose (supplement G), ranked.

    `cfg.temperature` must be above 0, else all hands would be equal; `generator` must be on the model's device.
    """
    if cfg.temperature == 0:
        raise ValueError("sampler.temperature is 0: every generated hand would be the same; set it to 1")
    zeros = model.norm.weight.new_zeros
    drop = torch.ones(1, dtype=torch.bool, device=generator.device)
    context = model.encode(
        zeros(1, 3, *model.encoder.image_size), zeros(1, NUM_JOINTS, POSE_CHANNELS), drop_image=drop, drop_pose=drop
    )
    drawn = cfg.model_copy(update={"decode": "codes"})
    return sample(model, replace(context, betas=torch.zeros_like(context.betas)), drawn, generator, count)


@torch.no_grad()
def sample(
    model: HandNetwork,
    context: Context,
    cfg: SamplerConfig,
    generator: torch.Generator | None = None,
    hypotheses: int = 1,
) -> HandPrediction:
    """Decode hands for encoded images.

    Returns B * hypotheses rows, the hypotheses of one image consecutive, ranked by `consensus`. `temperature` 0 takes
    the most probable code (then all hypotheses are equal); above 0, codes are sampled with `generator`, which must be
    on the model's device. Confidence is the probability under the unfiltered softmax.

    The hand is decoded from the sampled codes (`decode: codes`); from the expected code vector under the distribution
    of each token when it was fixed (`expectation`, as in training); or from the codes of tokens fixed before the last
    iteration and the expected vectors of those fixed in it (`mixed`). Several sampled hypotheses are always decoded
    from their codes, as their expectations would be nearly equal. A network without tokens gives equal hypotheses with
    confidence one, and its pose encoded as tokens.

    Under autocast only the network's forward passes are cast; code vectors, tokenizer and hand model are always fp32.
    """
    if hypotheses > 1 and cfg.temperature > 0:
        cfg = cfg.model_copy(update={"decode": "codes"})
    betas, placement = (x.float().repeat_interleave(hypotheses, 0) for x in (context.betas, context.placement))
    if context.rotmats is not None:
        rotmats = context.rotmats.float().repeat_interleave(hypotheses, 0)
        ids = model.tokenizer.encode(rotmats)
        tokens = PoseTokens(ids, torch.ones_like(ids, dtype=torch.float32))
    else:
        assert isinstance(model, MaskedTransformer)
        tokens, codes = _decode_in_chunks(model, context, cfg, generator, hypotheses)
        rotmats = model.tokenizer.decode_soft(codes)
    with full_precision(betas.device):
        hands = decoded_hands(model, rotmats, betas, placement, tokens, hypotheses)
    if hypotheses == 1:
        return hands
    best = hands.score.view(-1, hypotheses).argsort(dim=1, descending=True, stable=True)
    return hands[(best + hypotheses * torch.arange(len(best), device=best.device)[:, None]).flatten()]


def hypothesis_sampler(sampler: SamplerConfig) -> SamplerConfig:
    """The sampler settings of hypotheses: temperature 1 where it is 0, and hands decoded from sampled codes."""
    return sampler.model_copy(update={"temperature": sampler.temperature or 1.0, "decode": "codes"})


def decoded_hands(
    model: HandNetwork, rotmats: Tensor, betas: Tensor, placement: Tensor, tokens: PoseTokens, hypotheses: int = 1
) -> HandPrediction:
    """The hands of poses (R, 16, 3, 3), betas (R, 10) and placements (R, 3), with their tokens and scores."""
    mesh = model.mano(rotmats, betas)
    camera = place_camera(placement, mesh.joints_m)
    return HandPrediction(
        rotmats=rotmats,
        betas=betas,
        camera=camera,
        vertices_m=mesh.vertices_m,
        joints_m=mesh.joints_m,
        joints_2d=project_crop(mesh.joints_m, camera),
        tokens=tokens,
        joint_confidence=tokens.confidence @ joint_from_tokens(model.tokenizer.influence),
        log_probability=tokens.confidence.clamp_min(1e-12).log().mean(1),
        score=consensus(*(x.unflatten(0, (-1, hypotheses)) for x in (rotmats, mesh.joints_m))).flatten(),
    )


def _decode_in_chunks(
    model: MaskedTransformer, context: Context, cfg: SamplerConfig, generator: torch.Generator | None, hypotheses: int
) -> tuple[PoseTokens, Tensor]:
    """As `_decode`, with at most `MAX_SEQUENCES` token sequences at a time, which bounds the memory."""
    images = len(context.betas)
    at_once = max(1, MAX_SEQUENCES // images)
    counts = [min(at_once, hypotheses - start) for start in range(0, hypotheses, at_once)]
    parts = [_decode(model, context, cfg, generator, count) for count in counts]

    def join(tensors: Iterable[Tensor]) -> Tensor:
        by_image = [t.unflatten(0, (images, -1)) for t in tensors]
        return torch.cat(by_image, dim=1).flatten(0, 1)

    ids, confidence = join(p.ids for p, _ in parts), join(p.confidence for p, _ in parts)
    return PoseTokens(ids, confidence), join(codes for _, codes in parts)


def _decode(
    model: MaskedTransformer, context: Context, cfg: SamplerConfig, generator: torch.Generator | None, hypotheses: int
) -> tuple[PoseTokens, Tensor]:
    """Token sequences (B * H, L) after the last pass and the code vectors (B * H, L, C) of the hand."""
    for state in decoding_passes(model, context, cfg, generator, hypotheses):
        tokens, codes = PoseTokens(state.ids, state.confidence), state.codes
        del state  # frees its probabilities before the next pass allocates its own
    return tokens, codes


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
            noise = _gumbel_noise(confidence.shape, generator, device)
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
    return (logits + _gumbel_noise(logits.shape, generator, logits.device)).argmax(-1)


def _gumbel_noise(shape: torch.Size, generator: torch.Generator | None, device: torch.device) -> Tensor:
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
