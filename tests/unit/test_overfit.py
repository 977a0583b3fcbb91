"""The whole method, at the size of the tiny recipe, learns 32 hands by heart: every part carries its signal.

How many steps that takes depends on the processor's rounding, so both trainings go on until they are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.sampling import predict
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.training.losses import tokenizer_losses
from maskhand.training.transformer_loop import TransformerObjective
from support.training_fakes import hand_batch

HANDS = 32
TOKENIZER_STEPS, TRANSFORMER_STEPS = 1000, 220
"""Of a round, in which the rate rises and falls."""
ROUNDS, LOOK_EVERY = 5, 20
BY_HEART = ("training.masking.random_token_rate=0", "training.masking.drop_image=0")
"""Without what keeps a model from learning by heart."""


def train_until(
    learned: Callable[[], bool],
    loss_of_step: Callable[[int], torch.Tensor],
    groups: Callable[[], Iterable[dict[str, Any]]],
    steps: int,
) -> None:
    """Rounds of `steps` steps with warm restarts, until `learned`, checked now and then; AssertionError."""
    for k in range(ROUNDS * steps):
        if k % steps == 0:
            optimizer = torch.optim.AdamW(groups())
            parameters = [p for g in optimizer.param_groups for p in g["params"]]
            factor = lambda i: min(1.0, (i + 1) / 20) * 0.5 * (1 + math.cos(math.pi * i / steps))  # noqa: E731
            schedule = LambdaLR(optimizer, factor)
        optimizer.zero_grad()
        loss_of_step(k).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if (k + 1) % LOOK_EVERY == 0 and learned():
            return
    raise AssertionError(f"not learned in {ROUNDS * steps} steps")


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
@pytest.mark.timeout(1800)
def test_32_hands_are_learned_to_less_than_a_millimeter() -> None:
    recipe = load_recipe("tiny", BY_HEART)
    torch.manual_seed(0)
    mano = ManoLayer.from_default()
    batch = hand_batch(recipe, mano, HANDS, step=0)
    truth_m = mano(batch.rotmats, batch.betas).joints_m

    tokenizer = VQMano(recipe.tokenizer)

    def loss_of_poses(_: int) -> torch.Tensor:
        output = tokenizer.train()(batch.rotmats)
        return tokenizer_losses(output, batch.rotmats, mano, recipe.tokenizer_training.losses).total

    @torch.no_grad()
    def poses_are_kept() -> bool:
        decoded = tokenizer.eval().decode_codes(tokenizer.encode(batch.rotmats))
        return 1e3 * aligned_error_m(mano(decoded, batch.betas).joints_m.double(), truth_m.double()) < 0.25

    groups_of_tokenizer = lambda: [{"params": list(tokenizer.parameters()), "lr": 5e-3}]  # noqa: E731
    train_until(poses_are_kept, loss_of_poses, groups_of_tokenizer, TOKENIZER_STEPS)

    model = build_model(recipe, tokenizer, mano)
    objective, slots = TransformerObjective(model, recipe), torch.arange(HANDS)
    ids = tokenizer.encode(batch.rotmats)

    def loss_of_hands(k: int) -> torch.Tensor:
        model.train()
        return objective(batch, slots, k)[0]

    def hands_are_known() -> bool:
        hands = predict(model.eval(), batch, recipe.sampler)
        tokens = (hands.tokens.ids == ids).float().mean() > 0.97
        joints = 1e3 * aligned_error_m(hands.joints_m.double(), truth_m.double()) < 1.0
        camera = (hands.joints_2d - batch.joints_2d).abs().mean() < 0.05
        return bool(tokens and joints and camera)

    rate = recipe.training.optim.lr
    train_until(hands_are_known, loss_of_hands, lambda: model.parameter_groups(rate, None, 0.0), TRANSFORMER_STEPS)
