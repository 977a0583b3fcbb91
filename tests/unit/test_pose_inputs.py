"""A detector's depth and world landmarks: in the axes of the crop, and read by the networks that ask for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from maskhand.hand.layer import ManoLayer
from maskhand.loading.augment import ImageAugmentation
from maskhand.loading.collate import make_batch
from maskhand.loading.labels import stack_labels
from maskhand.loading.photo import photo_batch
from maskhand.models.build import build_model
from maskhand.models.vq_mano import VQMano
from maskhand.shards.sidecar_records import DetectedKeypoints
from support.hand_sets import make_samples
from support.loading_parts import CROP, tiny
from support.model_parts import random_batch, small_recipe


def detected(sample, rng):
    """A detection of the true hand, its world landmarks from any origin."""
    joints_m = sample.joints_cam_m.astype(np.float64)
    px_per_m = sample.camera.K_px[0, 0] / joints_m[0, 2]
    return DetectedKeypoints(
        sample.joints_2d_px,
        rng.uniform(0.2, 1, 21),
        z_px=(joints_m[:, 2] - joints_m[0, 2]) * px_per_m,
        world_m=joints_m - rng.normal(0, 0.1, 3),
    )


def test_depth_and_world_landmarks_turn_and_mirror_with_the_crop():
    """Of a detector that sees the true hand they are the 3D joints of the batch, right or left, turned or not."""
    samples = make_samples(6, sides=("right", "left"), seed=4)
    rng = np.random.default_rng(0)
    seen = [detected(sample, rng) for sample in samples]
    seen[5] = DetectedKeypoints(seen[5].keypoints_px, seen[5].confidence)
    seen[4].confidence[[3, 8]] = 0
    change = dataclasses.replace(
        ImageAugmentation.none(6),
        rotation_rad=np.array([0.0, 0.0, 1.0, -2.0, 0.4, 0.3]),
        scale=np.array([1.0, 1.3, 0.8, 0.9, 1.0, 1.0]),
        shift=rng.normal(0, 0.02, (6, 2)),
    )
    labels = stack_labels(samples, seen, [None] * 6)
    images = [sample.image for sample in samples]
    make = lambda keypoints: make_batch(  # noqa: E731
        labels, images, crop_px=CROP, box_scale=1.2, keypoints=keypoints, augmentation=change
    )
    batch = make("detected")
    pose, joints_m = batch.keypoints_2d, batch.joints_3d_m
    assert pose.shape == (6, 21, 7)
    for k in range(5):
        shown = pose[k, :, 2] > 0
        crops_per_m = samples[k].camera.K_px[0, 0] / samples[k].joints_cam_m[0, 2] / CROP
        crops_per_m *= batch.crop_from_image[k, :, :2].det().sqrt()
        torch.testing.assert_close(pose[k, shown, 4:], joints_m[k, shown], atol=1e-6, rtol=0)
        torch.testing.assert_close(pose[k, shown, 3], (joints_m[k, shown, 2] * crops_per_m).float(), atol=1e-5, rtol=0)
        assert not pose[k, ~shown].any()
    assert not pose[4, [3, 8]].any()
    assert pose[5, :, :3].any() and not pose[5, :, 3:].any(), "a detector of two dimensions"
    assert make("annotated").keypoints_2d[..., :3].any() and not make("annotated").keypoints_2d[..., 3:].any()


def test_a_photos_hands_have_the_depth_of_their_detections():
    samples = make_samples(2, sides=("right", "left"))
    rng = np.random.default_rng(1)
    seen = [detected(sample, rng) for sample in samples]
    config = tiny().data
    image = np.zeros((160, 200, 3), np.uint8)
    boxes, sides = np.stack([s.box_xyxy_px for s in samples]), [s.side for s in samples]
    arrays = {name: np.stack([getattr(d, name) for d in seen]) for name in ("keypoints_px", "confidence", "z_px")}
    photo = photo_batch(image, boxes, sides, config, **arrays, world_m=np.stack([d.world_m for d in seen]))
    labels = stack_labels(samples, seen, [None, None])
    batch = make_batch(
        labels, [s.image for s in samples], crop_px=config.crop_px, box_scale=config.box_scale,
        aspect=config.crop_aspect, keypoints="detected",
    )  # fmt: skip
    torch.testing.assert_close(photo.keypoints_2d, batch.keypoints_2d)
    flat = photo_batch(
        image, boxes, sides, config, keypoints_px=arrays["keypoints_px"], confidence=arrays["confidence"]
    )
    assert torch.equal(flat.keypoints_2d[..., :3], photo.keypoints_2d[..., :3]) and not flat.keypoints_2d[..., 3:].any()


def network(decoder, inputs):
    torch.manual_seed(0)
    recipe = small_recipe(decoder=decoder, pose2d_inputs=inputs)
    return build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval()


def pose_of(model, keypoints):
    batch = dataclasses.replace(random_batch(3), keypoints_2d=keypoints)
    with torch.no_grad():
        context = model.encode(model.condition(batch), keypoints)
    parts = [context.pose_tokens, context.betas, context.rotmats]
    return torch.cat([part.flatten(1) for part in parts if part is not None], dim=1)


@pytest.mark.parametrize("decoder", ["masked", "regression", "lifter"])
def test_networks_read_the_depth_only_if_asked_to(decoder):
    keypoints = random_batch(3).keypoints_2d
    keypoints[:, 7, 2] = 0
    deeper, hidden = keypoints.clone(), keypoints.clone()
    deeper[:, 4, 3:] += 0.1
    hidden[:, 7] += torch.tensor([5.0, 5.0, 0.0, 5.0, 5.0, 5.0, 5.0])
    for inputs, reads in (("xy", False), ("xyz_world", True)):
        model = network(decoder, inputs)
        here = pose_of(model, keypoints)
        assert torch.equal(here, pose_of(model, hidden))
        assert torch.equal(here, pose_of(model, deeper)) != reads
        if not reads:
            assert torch.equal(here, pose_of(model, keypoints[..., :3])), "exactly what x, y and confidence give"
            assert network(decoder, "xy").state_dict().keys() == network(decoder, "xyz_world").state_dict().keys()
