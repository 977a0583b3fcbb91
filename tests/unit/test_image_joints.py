"""Joints that the encoder sees, and the camera as a residual to that of the seen joints."""

from __future__ import annotations

import pytest
import torch

from maskhand.config import ConfigError
from maskhand.hand.camera import project_crop
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import model_digest
from maskhand.models.image_joints import ImageJointReadout
from maskhand.models.network import TransformerOutput, drop_contradicted
from maskhand.models.shape_camera_head import MEAN_SCALE, place_camera, placement_of_joints, seen_joints
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import override_inference
from maskhand.training.losses import transformer_losses
from maskhand.training.masking import corrupt_tokens
from maskhand.training.run_identity import inference_digest, run_identity
from support.model_parts import random_batch, small_model, small_recipe

SEEING = {"image_joints": True, "camera": "residual", "ref_points": "pose2d", "pose2d_tokens": 21}


@pytest.mark.parametrize("decoder", ["masked", "regression"])
def test_every_hand_has_joints_with_and_without_a_2d_pose(decoder: str) -> None:
    recipe = small_recipe(**SEEING, decoder=decoder)
    model, batch = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval(), random_batch(4)
    ids = torch.full((4, model.num_tokens), model.mask_id)
    seen = model(batch.image, batch.keypoints_2d, ids)
    dropped = model(batch.image, batch.keypoints_2d, ids, drop_pose=torch.ones(4, dtype=torch.bool))
    assert seen.image_joints.shape == (4, 21, 5) and torch.equal(seen.image_joints, dropped.image_joints)
    assert dropped.placement.isfinite().all() and not torch.equal(seen.placement, dropped.placement)


@pytest.mark.parametrize("decoder", ["masked", "regression"])
def test_a_2d_pose_that_contradicts_the_image_is_not_read_at_inference(decoder: str) -> None:
    recipe = small_recipe(**SEEING, decoder=decoder, pose2d_tolerance=0.05)
    model, batch = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval(), random_batch(4)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        joints = model.encode(batch.image, batch.keypoints_2d).image_joints
        angle = 6.3 * torch.rand(4, 21, generator=generator)
        distance = torch.tensor([0.049, 0.051, 0.02, 0.19])[:, None]
        pose = batch.keypoints_2d.clone()
        pose[..., :2] = joints[..., :2] + torch.stack([angle.cos(), angle.sin()], -1) * distance[..., None]
        pose[2, :10, :2] += 5.0  # joints that were not detected do not count
        pose[..., 2] = 0.9
        pose[2, :10, 2] = 0.0
        read = model.encode(batch.image, pose).keypoints_2d
        assert torch.equal(read[[0, 2]], pose[[0, 2]]) and not read[[1, 3]].any()
        dropped = model.encode(batch.image, pose, drop_image=torch.ones(4, dtype=torch.bool))
        assert torch.equal(dropped.keypoints_2d, pose)
        assert torch.equal(model.train().encode(batch.image, pose).keypoints_2d, pose)
    with pytest.raises(ValueError, match=r"pose2d_tolerance=0\.05: needs image_joints"):
        small_recipe(pose2d_tolerance=0.05)


def test_the_tolerance_is_an_inference_setting() -> None:
    recipe = small_recipe(**SEEING, pose2d_tolerance=0.05)
    other = override_inference(recipe, ["model.pose2d_tolerance=null"])
    assert other.model.pose2d_tolerance is None
    assert run_identity("transformer", recipe, {}) == run_identity("transformer", other, {})
    assert inference_digest(recipe) != inference_digest(other)
    assert model_digest("weights", recipe, None) != model_digest("weights", other, None)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval()
    bundle = ModelBundle(model, recipe, {}, "hand", "weights").with_settings(other)
    assert bundle.model.pose2d_tolerance is None and bundle.recipe == other
    with pytest.raises(ConfigError, match=r"model\.dim=8.*only inference settings .*model\.pose2d_tolerance"):
        override_inference(recipe, ["model.dim=8"])


def test_hands_without_image_keep_their_2d_pose() -> None:
    pose, joints = 0.1 * torch.rand(3, 21, 7) + 0.05, torch.zeros(2, 21, 5)
    kept = drop_contradicted(pose, joints, 0.05)
    assert not kept[:2].any() and torch.equal(kept[2], pose[2])
    far = torch.cat([pose[:2, :, :2] + 1.0, pose[:2, :, 2:]], dim=-1)
    assert torch.equal(drop_contradicted(far, joints, 0.05), far)  # of another hand


def test_the_readout_starts_from_what_is_published_and_is_linear_in_the_pooled_map() -> None:
    readout, published = ImageJointReadout(8), torch.randn(3, 21, 5)
    assert torch.equal(readout(torch.randn(3, 8, 4, 4), published), published)
    torch.nn.init.normal_(readout.readout.weight)
    coarsest = torch.randn(3, 8, 4, 4)
    normed = torch.nn.functional.layer_norm(coarsest.mean((2, 3)), (8,))
    expected = (normed @ readout.readout.weight.T).view(3, 21, 5) * readout.scale
    assert torch.allclose(readout(coarsest, None), expected, atol=1e-6)


def test_seen_joints_prefer_the_2d_pose() -> None:
    keypoints, image_joints = torch.rand(2, 21, 3), torch.rand(2, 21, 5)
    keypoints[1] = 0
    seen = seen_joints(keypoints, image_joints)
    assert torch.equal(seen[0], keypoints[0]) and torch.equal(seen[1, :, :2], image_joints[1, :, :2])
    assert (seen[1, :, 2] == 1).all() and torch.equal(seen_joints(keypoints, None), keypoints)


def test_the_placement_of_a_flat_hand_s_joints_is_its_camera() -> None:
    joints = ManoLayer.from_default()(torch.eye(3).expand(1, 16, 3, 3), torch.zeros(1, 10)).joints_m
    facing = joints[..., [0, 2, 1]]  # the rest hand lies in the plane y = 0
    wanted = torch.tensor([[9.0, 0.03, -0.02]])
    points = project_crop(facing, place_camera(wanted, facing))
    seen = torch.cat([points, torch.ones(1, 21, 1)], dim=-1)
    found = placement_of_joints(seen)
    assert torch.allclose(found[:, 1:], wanted[:, 1:], atol=1e-3)
    assert found[0, 0] == pytest.approx(9.0, rel=0.15)  # the constant is that of a mean pose
    seen[:, 5:, 2] = 0
    assert torch.equal(placement_of_joints(seen), torch.tensor([[MEAN_SCALE, 0.0, 0.0]]))


def test_the_loss_of_true_joints_is_zero_and_moves_the_encoder() -> None:
    recipe = small_recipe(**SEEING)
    model, batch = small_model(recipe), random_batch(3)
    truth = torch.cat([batch.joints_2d, batch.joints_3d_m - batch.joints_3d_m[:, :1]], dim=-1)
    output = model(batch.image, batch.keypoints_2d, torch.full((3, model.num_tokens), model.mask_id))

    def loss(joints: torch.Tensor) -> torch.Tensor:
        ids, settings = model.tokenizer.encode(batch.rotmats), recipe.training
        corrupted = corrupt_tokens(
            ids, batch.has_mano, settings.masking, model.mask_id, seed=0, step=0, slots=torch.arange(3)
        )
        hand = TransformerOutput(output.logits, output.betas, output.placement, None, joints)
        return transformer_losses(
            hand, batch, corrupted, model.tokenizer, model.mano, settings.losses, settings.masking
        ).image_joints

    assert loss(truth) == 0
    shifted = truth + torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0])
    assert loss(shifted) == pytest.approx(0.1 * batch.joints_2d_conf.sum(1).mean().item(), rel=1e-4)
    loss(output.image_joints).backward()
    assert model.joint_readout.readout.weight.grad.abs().sum() > 0
