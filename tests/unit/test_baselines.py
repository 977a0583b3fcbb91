"""The networks that the masked one is compared with: what they see, what they do without, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.build import build_model, check_model
from maskhand.models.network import HandNetwork
from maskhand.models.shape_camera_head import MEAN_SCALE
from maskhand.models.vq_mano import VQMano
from maskhand.training.transformer_loop import TransformerObjective
from support.model_parts import random_batch, random_poses, small_recipe


def network(recipe: Recipe) -> HandNetwork:
    torch.manual_seed(0)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer(random_poses(64))  # starts the codebook
    model = build_model(recipe, tokenizer, ManoLayer.from_default()).eval()
    for parameter in model.parameters():  # readouts begin at zero; what goes into them would not be seen
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def outputs(model: HandNetwork, batch: HandBatch, **dropped: torch.Tensor) -> torch.Tensor:
    """(B, ...) all outputs of the network for each hand, concatenated."""
    context = model.encode(model.condition(batch), batch.keypoints_2d, **dropped)
    assert context.rotmats is not None
    return torch.cat([context.rotmats.flatten(1), context.betas, context.placement], dim=1)


def with_pose(batch: HandBatch, keypoints_2d: torch.Tensor) -> HandBatch:
    return replace(batch, keypoints_2d=keypoints_2d)


@pytest.mark.parametrize(
    ("decoder", "tokens", "sees"),
    [("regression", 21, True), ("regression", 1, True), ("regression", 0, False), ("lifter", 21, True)],
)
def test_the_2d_pose_decides_with_the_rest_unless_it_is_dropped(decoder: str, tokens: int, sees: bool) -> None:
    model, batch = network(small_recipe(decoder=decoder, pose2d_tokens=tokens)), random_batch(3)
    moved = with_pose(batch, batch.keypoints_2d + torch.tensor([0.1] + 6 * [0.0]))
    none = with_pose(batch, torch.zeros_like(batch.keypoints_2d))
    first = torch.tensor([True, False, False])
    here, there, unseen, dropped = (
        outputs(model, batch), outputs(model, moved), outputs(model, none), outputs(model, batch, drop_pose=first),
    )  # fmt: skip
    assert ((here - there).abs().amax(1) > 1e-4).tolist() == [sees] * 3
    torch.testing.assert_close(dropped, torch.where(first[:, None], unseen, here))
    nowhere = batch.keypoints_2d.clone()
    nowhere[:, 5] = torch.tensor([7.0, 7.0, 0.0, 7.0, 7.0, 7.0, 7.0])
    hidden = batch.keypoints_2d.clone()
    hidden[:, 5] = 0.0
    torch.testing.assert_close(outputs(model, with_pose(batch, nowhere)), outputs(model, with_pose(batch, hidden)))


def test_regression_sees_the_image_and_a_lifter_has_no_eyes() -> None:
    batch, other = random_batch(3), random_batch(3, seed=1)
    repainted = replace(batch, pixels=other.pixels)
    regression, lifter = (network(small_recipe(decoder=decoder)) for decoder in ("regression", "lifter"))
    assert ((outputs(regression, batch) - outputs(regression, repainted)).abs().amax(1) > 1e-4).all()
    assert torch.equal(outputs(lifter, batch), outputs(lifter, repainted))
    assert lifter.condition(batch).shape == (3, 0) and lifter.encoder is None
    assert not any(name.startswith("encoder.") for name in lifter.state_dict())


def test_a_lifter_needs_no_weights_of_an_encoder() -> None:
    recipe = small_recipe(decoder="lifter")
    backbone = recipe.model.backbone.model_copy(update={"checkpoint": "/nowhere/vit.pth"})
    named = recipe.model_copy(update={"model": recipe.model.model_copy(update={"backbone": backbone})})
    check_model(named, ManoLayer.from_default())
    with pytest.raises(ValueError, match="nowhere"):
        check_model(
            named.model_copy(update={"model": named.model.model_copy(update={"decoder": "regression"})}),
            ManoLayer.from_default(),
        )


def test_a_lifter_begins_at_the_mean_hand_and_learns_a_small_set_from_its_keypoints() -> None:
    """The joints that it sees are those it is to find, so that only their depth is a guess."""
    torch.manual_seed(0)
    mano = ManoLayer.from_default()
    recipe = small_recipe(decoder="lifter", lifter_width=128)
    batch = random_batch(8)
    fingers = axis_angle_to_matrix(0.4 * torch.randn(8, 15, 3))
    rotmats = torch.cat([random_poses(8)[:, :1], fingers], dim=1)
    joints_m = mano(rotmats, batch.betas).joints_m
    joints_2d = MEAN_SCALE / 2 * (joints_m - joints_m.mean(1, keepdim=True))[..., :2]
    batch = replace(
        batch,
        rotmats=rotmats,
        joints_3d_m=joints_m - joints_m[:, :1],
        joints_2d=joints_2d,
        keypoints_2d=torch.cat([joints_2d, torch.ones(8, 21, 1)], dim=-1),
    )
    model = build_model(recipe, VQMano(recipe.tokenizer), mano).train()
    with torch.no_grad():
        begun = model(model.condition(batch), batch.keypoints_2d)
    assert (begun.rotmats - torch.eye(3)).abs().max() < 0.2 and begun.betas.abs().max() < 0.2

    objective, slots = TransformerObjective(model, recipe), torch.arange(8)
    optimizer = torch.optim.AdamW(model.parameter_groups(2e-3, None, 0.0), betas=(0.9, 0.95))
    first = objective(batch, slots, 0)[1]["joints_3d"].item()
    for step in range(2000):  # some 200 are enough; which rounding a machine has must not decide
        loss, stats = objective(batch, slots, step)
        if stats["joints_3d"].item() < 0.05 * first:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    else:
        pytest.fail(f"joints are {stats['joints_3d'].item() / first:.1%} of the first error off")
    shuffled = model(model.condition(batch), batch.keypoints_2d.roll(1, 0)).rotmats
    assert shuffled is not None
    torch.testing.assert_close(shuffled, model(model.condition(batch), batch.keypoints_2d).rotmats.roll(1, 0))
