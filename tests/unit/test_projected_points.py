"""`model.ref_points: projected`: a pass looks where the hand lies that the pass before expects."""

from __future__ import annotations

import itertools

import pytest
import torch

from maskhand.config import SamplerConfig
from maskhand.conventions import MANO_16, OPENPOSE_21, openpose_joint_of_mano_joint
from maskhand.hand.assumed_camera import FOCAL
from maskhand.models.deformable import crop_to_map
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import sample
from maskhand.models.synthesizer import ReferencePoints
from maskhand.training.seeds import coin
from maskhand.training.transformer_loop import TransformerObjective
from support.model_parts import random_batch, small_model, small_recipe


def model_of(kind: str = "projected", pose_tokens: int = 21) -> MaskedTransformer:
    model = small_model(small_recipe(ref_points=kind, pose2d_tokens=pose_tokens))
    for layer in model.synthesizer:  # so that it matters where a token looks
        torch.nn.init.normal_(layer.cross_attn.out_proj.weight)
    torch.nn.init.normal_(model.code_classifier.linear.weight)
    return model


def test_a_hand_is_projected_as_it_is_decoded() -> None:
    """Two hands for each of two images, against one at a time in the formulas of docs/conventions.md."""
    model, batch = model_of(), random_batch(4)
    context = model.encode(batch.image[:2], batch.keypoints_2d[:2])
    ids = model.tokenizer.encode(batch.rotmats)
    found = model.project(model.tokenizer.codebook[ids], context)
    for row in range(4):
        image = row // 2
        rotmats = model.tokenizer.decode_codes(ids[row : row + 1])
        joints_m = model.mano(rotmats, context.betas[image : image + 1]).joints_m[0]
        scale, center = context.placement[image, 0], context.placement[image, 1:]
        at = joints_m[:, :2] - joints_m[:, :2].mean(0) + center * 2 / scale
        expected = FOCAL * at / (joints_m[:, 2:] + 2 * FOCAL / scale)
        assert torch.allclose(found[row], expected, atol=1e-6)


@pytest.mark.parametrize("pose_tokens", [0, 1, 21])
def test_tokens_look_at_the_joint_that_they_influence(pose_tokens: int) -> None:
    influence = torch.rand(16, 16)
    influence[3, MANO_16.index("ring2")] = 1.5
    points = ReferencePoints("projected", pose_tokens, influence, 8, 2, 0.75)
    keypoints = torch.rand(2, 21, 3) * 0.2 + 0.01
    keypoints[1, 4, 2] = 0.0
    projected = torch.rand(6, 21, 2) - 0.5
    at = points(torch.randn(6, pose_tokens + 16, 8), keypoints, projected=projected)
    joints = torch.tensor(openpose_joint_of_mano_joint())[influence.argmax(1)]
    assert torch.allclose(at[:, pose_tokens:], crop_to_map(projected[:, joints], 0.75))
    assert torch.allclose(at[:, pose_tokens + 3], crop_to_map(projected[:, OPENPOSE_21.index("ring_pip")], 0.75))
    if pose_tokens == 1:
        assert torch.allclose(at[:, 0], torch.full((6, 2), 0.5)), "the token of the whole 2D pose has no joint"
    if pose_tokens == 21:
        own = crop_to_map(keypoints[..., :2], 0.75).repeat_interleave(3, 0)
        own[3:, 4] = crop_to_map(projected[3:, 4], 0.75)  # it was not detected
        assert torch.allclose(at[:, :21], own)


def test_a_first_pass_is_that_of_pose2d() -> None:
    model, other, batch = model_of(), model_of("pose2d"), random_batch(3)
    other.load_state_dict(model.state_dict())
    hands = [sample(m, m.encode(batch.image, batch.keypoints_2d), SamplerConfig(iterations=1)) for m in (model, other)]
    assert torch.equal(hands[0].rotmats, hands[1].rotmats)
    later = [sample(m, m.encode(batch.image, batch.keypoints_2d), SamplerConfig(iterations=3)) for m in (model, other)]
    assert not torch.equal(later[0].rotmats, later[1].rotmats)


@pytest.mark.parametrize("decode", ["expectation", "mixed", "codes"])
def test_a_pass_looks_at_the_expectation_of_the_one_before(decode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked tokens count with their expectation; fixed ones as the hand will be decoded from them."""
    model, batch = model_of(), random_batch(2)
    context, codebook = model.encode(batch.image, batch.keypoints_2d), model.tokenizer.codebook
    passes, logits = [], model.logits

    def recorded(ids, context, joints_2d=None):
        passes.append((ids.clone(), joints_2d, logits(ids, context, joints_2d)))
        return passes[-1][2]

    monkeypatch.setattr(model, "logits", recorded)
    cfg = SamplerConfig(iterations=3, temperature=1.0, decode=decode)  # type: ignore[arg-type]
    sample(model, context, cfg, torch.Generator().manual_seed(0), hypotheses=1)
    assert len(passes) == 3 and passes[0][1] is None
    codes = torch.zeros(2, 16, codebook.shape[1])
    for (before, _, answer), (ids, joints_2d, _) in itertools.pairwise(passes):
        fixed_now = (before == model.mask_id) & (ids != model.mask_id)
        expected = answer.softmax(-1) @ codebook
        kept = expected if decode == "expectation" else codebook[ids.masked_fill(ids == model.mask_id, 0)]
        codes[fixed_now] = kept[fixed_now]
        hand = torch.where((ids == model.mask_id)[..., None], expected, codes)
        assert torch.allclose(joints_2d, model.project(hand, context), atol=1e-6)


def test_hypotheses_share_one_encoding_and_look_for_themselves() -> None:
    model, batch = model_of(), random_batch(2)
    ids, codes = torch.randint(model.mask_id + 1, (6, 16)), torch.randn(6, 16, 6)
    context = model.encode(batch.image, batch.keypoints_2d)
    together = model.logits(ids, context, model.project(codes, context))
    for row in range(6):
        one = batch[slice(row // 3, row // 3 + 1)]
        alone_in = model.encode(one.image, one.keypoints_2d)
        points = model.project(codes[row : row + 1], alone_in)
        alone = model.logits(ids[row : row + 1], alone_in, points)
        assert torch.allclose(alone, together[row : row + 1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_a_second_pass_trains_every_weight(half: bool) -> None:
    """The first pass has no gradient, and leaves no weights behind that were cast without one."""
    model, batch = model_of().train(), random_batch(3)
    ids = torch.randint(model.mask_id + 1, (3, 16))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = model(batch.image, batch.keypoints_2d, ids, self_condition=True)
    (output.logits.float().square().mean() + output.betas.square().mean() + output.placement.square().mean()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.code_classifier.linear.weight.grad.abs().sum() > 0
    if half:
        return
    context = model.encode(batch.image, batch.keypoints_2d)
    masked = (ids == model.mask_id)[..., None]
    codebook = model.tokenizer.codebook
    expected = model.logits(ids, context).softmax(-1) @ codebook
    hand = torch.where(masked, expected, codebook[ids.masked_fill(masked[..., 0], 0)])
    assert torch.allclose(output.logits, model.logits(ids, context, model.project(hand, context)), atol=1e-5)


def test_half_of_the_training_steps_have_two_passes_and_those_of_other_networks_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [step for step in range(200) if coin(5, step)]
    assert 70 < len(steps) < 130 and steps != [step for step in range(200) if coin(6, step)]
    batch, seen = random_batch(2), []
    project = MaskedTransformer.project
    monkeypatch.setattr(MaskedTransformer, "project", lambda *args: seen.append(1) or project(*args))
    for kind in ("projected", "pose2d"):
        recipe = small_recipe(ref_points=kind)
        objective = TransformerObjective(small_model(recipe).train(), recipe)
        for step in range(6):
            objective(batch, torch.arange(2), step)
        assert len(seen) == sum(coin(recipe.seed, step) for step in range(6))
