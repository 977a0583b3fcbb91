"""Sampling of hands: the hands that iterative decoding (`models/decoding.py`) gives for encoded images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from maskhand.batch import POSE_CHANNELS, HandBatch, HandPrediction, PoseTokens
from maskhand.config import SamplerConfig
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.camera import project_crop
from maskhand.models.consensus import consensus
from maskhand.models.decoding import decoding_passes
from maskhand.models.influence import joint_from_tokens
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context, HandNetwork
from maskhand.models.shape_camera_head import place_camera
from maskhand.models.vq_mano import full_precision

MAX_SEQUENCES = 512
"""Maximum number of token sequences decoded together; with 64 tokens and 2048 codes, the logits of one are 0.5 MB."""


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
        token_confidence_of_joints=tokens.confidence @ joint_from_tokens(model.tokenizer.influence),
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
