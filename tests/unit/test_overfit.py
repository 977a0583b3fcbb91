"""The whole method, at the size of the tiny recipe, learns 32 hands by heart: every part carries its signal."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from training_fakes import hand_batch

from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.sampling import predict
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.training.losses import tokenizer_losses
from maskhand.training.transformer_loop import TransformerObjective

HANDS = 32
TOKENIZER_STEPS, TRANSFORMER_STEPS = 1000, 220
BY_HEART = ("training.masking.random_token_rate=0", "training.masking.drop_image=0")
"""Without what keeps a model from learning by heart."""


def optimizer_of(groups, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.AdamW(groups)
    fall = LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 20) * 0.5 * (1 + math.cos(math.pi * k / steps)))
    return optimizer, fall


def step(optimizer: torch.optim.Optimizer, schedule: LambdaLR, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
    optimizer.step()
    schedule.step()


def aligned_error_m(points: torch.Tensor, target: torch.Tensor) -> float:
    """Mean distance after the best similarity transform per hand (Umeyama 1991)."""
    moved, fixed = points - points.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    u, s, vt = torch.linalg.svd(moved.mT @ fixed)
    sign = torch.ones_like(s)
    sign[:, 2] = (u @ vt).det().sign()
    rotation = u @ torch.diag_embed(sign) @ vt
    scale = (s * sign).sum(1) / moved.square().sum((1, 2))
    return (scale[:, None, None] * (moved @ rotation) - fixed).norm(dim=-1).mean().item()


@pytest.mark.slow
def test_32_hands_are_learnt_to_less_than_a_millimetre() -> None:
    recipe = load_recipe("tiny", BY_HEART)
    torch.manual_seed(0)
    mano = ManoLayer.from_default()
    batch = hand_batch(recipe, mano, HANDS, step=0)
    truth_m = mano(batch.rotmats, batch.betas).joints_m

    tokenizer = VQMano(recipe.tokenizer)
    optimizer, schedule = optimizer_of([{"params": tokenizer.parameters(), "lr": 5e-3}], TOKENIZER_STEPS)
    for _ in range(TOKENIZER_STEPS):
        losses = tokenizer_losses(tokenizer(batch.rotmats), batch.rotmats, mano, recipe.tokenizer_training.losses)
        step(optimizer, schedule, losses.total)

    model = build_model(recipe, tokenizer, mano).train()
    objective, slots = TransformerObjective(model, recipe), torch.arange(HANDS)
    optimizer, schedule = optimizer_of(model.parameter_groups(recipe.training.optim.lr, None, 0.0), TRANSFORMER_STEPS)
    for k in range(TRANSFORMER_STEPS):
        step(optimizer, schedule, objective(batch, slots, k)[0])

    hands = predict(model.eval(), batch, recipe.sampler)
    assert (hands.tokens.ids == tokenizer.encode(batch.rotmats)).float().mean() > 0.97
    assert 1e3 * aligned_error_m(hands.joints_m.double(), truth_m.double()) < 1.0
    assert (hands.joints_2d - batch.joints_2d).abs().mean() < 0.05, "the camera follows"
