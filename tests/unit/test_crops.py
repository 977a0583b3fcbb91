"""Crops, augmentation and labels of a batch: images, 2D, 3D and MANO stay consistent; draws are pure."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from maskhand.batch import normalize
from maskhand.hand.layer import ManoLayer
from maskhand.loading.augment import ImageAugmentation, draw_image_augmentation, draw_keypoint_augmentation
from maskhand.loading.collate import input_pose, make_batch
from maskhand.loading.crop import crop_encoded, crop_side_px, cut_crop
from maskhand.loading.labels import stack_labels
from maskhand.shards.sidecar_records import DetectedKeypoints
from support.hand_sets import make_samples
from support.loading_parts import CROP, batch_of, same, tiny


def test_crop_square_grows_to_the_aspect_of_the_network():
    boxes = np.array([[0, 0, 30, 90], [0, 0, 90, 30], [10, 20, 70, 100]], np.float32)
    np.testing.assert_allclose(crop_side_px(boxes, 1.5, 0.75), [135, 180, 120])


@pytest.mark.parametrize("side", ["right", "left"])
def test_projected_3d_equals_2d_and_posed_mano_equals_3d_after_any_augmentation(side):
    samples = make_samples(4, sides=(side,), seed=3)
    # A turn of the image is a turn about the optical axis only if the square is centered on the principal point.
    centered = []
    for sample in samples:
        width = sample.image_size_px[0]
        cx, cy = sample.camera.K_px[:2, 2]
        half = 70.0
        box = np.array([cx - half, cy - half, cx + half, cy + half], np.float32)
        centered.append(dataclasses.replace(sample, box_xyxy_px=box))
        assert 0 < cx < width
    change = dataclasses.replace(
        ImageAugmentation.none(4),
        rotation_rad=np.array([0.0, 0.5, -1.0, 3.0]),
        scale=np.array([1.0, 1.3, 0.7, 0.9]),
    )
    batch = batch_of(centered, change)
    mesh = ManoLayer.from_default()(batch.rotmats, batch.betas)
    relative = mesh.joints_m - mesh.joints_m[:, :1]
    assert torch.allclose(relative, batch.joints_3d_m, atol=2e-5)

    wrists = np.stack([s.joints_cam_m[0] for s in centered]) * ([-1, 1, 1] if side == "left" else [1, 1, 1])
    turn = np.stack([cv2.Rodrigues(np.array([0, 0, a]))[0] for a in change.rotation_rad])
    points = batch.joints_3d_m.double() + torch.from_numpy((turn @ wrists[:, :, None])[..., 0])[:, None]
    focal_px = torch.tensor([s.camera.K_px[0, 0] for s in centered])
    focal = focal_px * batch.crop_from_image[:, :, :2].det().abs().sqrt() / CROP  # in sides of the crop
    projected = focal[:, None, None] * points[..., :2] / points[..., 2:]
    assert torch.allclose(projected, batch.joints_2d.double(), atol=1e-4)


def test_image_and_joints_move_together():
    """A white dot painted at a joint is found at the joint of the batch."""
    for side, seed in (("right", 0), ("left", 1)):
        (sample,) = make_samples(1, sides=(side,), seed=seed)
        image = np.zeros((160, 200, 3), np.uint8)
        target = sample.joints_2d_px[9]
        cv2.circle(image, np.round(target).astype(int).tolist(), 5, (255, 255, 255), -1, cv2.LINE_AA)
        sample = dataclasses.replace(sample, image=cv2.imencode(".png", image)[1].tobytes())
        change = dataclasses.replace(
            ImageAugmentation.none(1),
            rotation_rad=np.array([0.6]),
            scale=np.array([1.2]),
            shift=np.array([[0.05, -0.1]]),
        )
        batch = batch_of([sample], change, crop_px=256)
        bright = batch.image[0, 0] - batch.image[0, 0].min()
        ys, xs = torch.meshgrid(torch.arange(256.0), torch.arange(32, 224.0), indexing="ij")
        found = torch.stack([(bright * xs).sum(), (bright * ys).sum()]) / bright.sum() / 256 - 0.5
        assert torch.allclose(found, batch.joints_2d[0, 9], atol=0.01)


def test_a_left_hand_gives_the_batch_of_the_right_hand_in_the_mirrored_image():
    (left,) = make_samples(1, sides=("left",))
    width = left.image_size_px[0]
    flipped = cv2.imdecode(np.frombuffer(left.image, np.uint8), cv2.IMREAD_COLOR)[:, ::-1]
    joints = left.joints_2d_px * [-1, 1] + [width - 1, 0]
    K = left.camera.K_px.copy()
    K[0, 2] = width - 1 - K[0, 2]
    mirror_aa, mirror = np.float32([1, -1, -1]), np.float32([-1, 1, 1])
    x0, y0, x1, y1 = left.box_xyxy_px
    right = dataclasses.replace(
        left,
        side="right",
        image=cv2.imencode(".png", flipped)[1].tobytes(),
        joints_2d_px=joints.astype(np.float32),
        joints_cam_m=left.joints_cam_m * mirror,
        vertices_cam_m=left.vertices_cam_m * mirror,
        box_xyxy_px=np.float32([width - 1 - x1, y0, width - 1 - x0, y1]),
        camera=dataclasses.replace(left.camera, K_px=K),
        mano=dataclasses.replace(
            left.mano, pose_aa=left.mano.pose_aa * mirror_aa, transl_cam_m=left.mano.transl_cam_m * mirror
        ),
    )
    a, b = batch_of([left]), batch_of([right])
    assert a.is_left.item() and not b.is_left.item()
    # Bilinear weights are quantized by OpenCV, so a mirrored warp differs by a gray level here and there.
    assert (a.image - b.image).abs().max() < 0.05
    assert same(dataclasses.replace(a, pixels=b.pixels, is_left=b.is_left), b, tolerance=1e-5)
    back = torch.linalg.inv(torch.cat([a.crop_from_image[0], torch.tensor([[0.0, 0, 1]])]).double())
    pixels = torch.cat([(a.joints_2d[0].double() + 0.5) * CROP, torch.ones(21, 1, dtype=torch.float64)], 1) @ back.T
    np.testing.assert_allclose((width - 1) - pixels[:, 0].numpy(), left.joints_2d_px[:, 0], atol=0.01)


def test_shrinking_does_not_alias():
    """Fine stripes become their mean gray, in decoded images and in JPEGs decoded at reduced size."""
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    affine = np.array([[0.13, 0, 4.0], [0, 0.13, 4.0]])
    inner = cut_crop(stripes, affine, 100)[20:80, 20:80]
    assert abs(inner.mean() - 127.5) < 2 and inner.std() < 4
    jpeg = cv2.imencode(".jpg", stripes)[1].tobytes()
    inner = crop_encoded(jpeg, affine, 100)[20:80, 20:80, :3]
    assert abs(inner.astype(float).mean() - 127.5) < 3 and inner.std() < 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("scale", [0.11, 0.2, 0.4])
def test_shrinking_keeps_positions_and_colors(suffix, scale):
    """JPEGs decoded at 1/8, 1/4 and 1/2 size, and images smoothed around the crop only."""
    image = np.zeros((640, 800, 3), np.uint8)
    cv2.circle(image, (503, 217), 40, (40, 160, 240), -1)
    turned = np.array([[scale, scale / 4], [-scale / 4, scale]])
    affine = np.hstack([turned, np.array([[52.0], [47.0]]) - turned @ [[503.0], [217.0]]])
    crop = crop_encoded(cv2.imencode(suffix, image)[1].tobytes(), affine, 100).astype(float)
    center = np.array([52.0, 47.0])
    weight = crop[..., 0]
    ys, xs = np.mgrid[:100, :100]
    np.testing.assert_allclose(
        [(weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()], center, atol=0.03
    )
    assert np.round(crop[int(center[1]), int(center[0]), :3]).tolist() == pytest.approx([240, 160, 40], abs=4)


def test_normalization_is_imagenets():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 4), dtype=np.uint8)
    gain = np.array([[1, 1, 1], [0.8, 1.2, 1.0]])
    scaled = np.minimum(pixels[..., :3] * gain[:, None, None], 255) / 255
    expected = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    image = normalize(torch.from_numpy(pixels), torch.from_numpy(gain).float())
    assert image.shape == (2, 3, 64, 48) and image.dtype == torch.float32 and image.is_contiguous()
    np.testing.assert_allclose(image.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_alpha_is_the_coverage_of_the_image(suffix):
    encoded = cv2.imencode(suffix, np.full((60, 60, 3), 200, np.uint8))[1].tobytes()
    crop = crop_encoded(encoded, np.array([[0.5, 0, 20], [0, 0.5, 20]]), 64)
    covered = np.zeros((64, 64), bool)
    covered[21:49, 21:49] = True  # the image's edge pixels are mixed with the border
    assert (crop[covered] == [200, 200, 200, 255]).all()
    covered[19:51, 19:51] = True
    assert not crop[~covered].any()


@pytest.mark.parametrize("rotation", [0.0, 0.7])
def test_an_erased_rectangle_has_its_place_and_color_and_nothing_else_changes(rotation):
    samples = make_samples(2)
    plain = dataclasses.replace(ImageAugmentation.none(2), rotation_rad=np.full(2, rotation))
    erased = dataclasses.replace(
        plain,
        erase_xyxy=np.array([[0.25, 0.125, 0.75, 0.5], [0.0, 0.5, 0.25, 1.0]]),
        erase_rgb=np.array([[10.0, 20, 30], [200, 100, 50]]),
    )
    before, after = batch_of(samples, plain), batch_of(samples, erased)
    inside = torch.zeros(2, CROP, CROP * 3 // 4, dtype=torch.bool)
    left = CROP // 8  # columns of the square that the network does not see
    inside[0, CROP // 8 : CROP // 2, CROP // 4 - left : 3 * CROP // 4 - left] = True
    inside[1, CROP // 2 :, : CROP // 4 - left] = True
    for row in range(2):
        color = torch.from_numpy(erased.erase_rgb[row]).byte()
        assert (after.pixels[row][inside[row]][:, :3] == color).all()
    assert torch.equal(after.pixels[~inside], before.pixels[~inside])
    assert same(dataclasses.replace(after, pixels=before.pixels), before), "labels do not know of it"


def test_an_image_that_cannot_be_decoded_is_an_error():
    with pytest.raises(ValueError, match="decoded"):
        crop_encoded(b"\xff\xd8 no image", np.eye(2, 3), 32)


# ------------------------------------------------------------------------------------------- absent labels, 2D pose


def test_absent_labels_are_zero_with_zero_flags():
    (sample,) = make_samples(1)
    bare = dataclasses.replace(
        sample, camera=None, joints_2d_px=None, joints_2d_conf=None, joints_cam_m=None, joints_3d_valid=None, mano=None
    )
    labels = stack_labels([bare], [None], [None])
    batch = make_batch(labels, [bare.image], crop_px=CROP, box_scale=1.2, keypoints="annotated")
    for name in (
        "keypoints_2d",
        "joints_2d",
        "joints_2d_conf",
        "joints_3d_m",
        "joints_3d_valid",
        "betas",
    ):
        assert not getattr(batch, name).any(), name
    assert batch.has_mano.item() == 0
    assert torch.equal(batch.rotmats, torch.eye(3).expand(1, 16, 3, 3))


def test_without_a_wrist_no_joint_is_valid_in_3d():
    (sample,) = make_samples(1)
    valid = np.ones(21, bool)
    valid[0] = False
    batch = batch_of([dataclasses.replace(sample, joints_3d_valid=valid)])
    assert not batch.joints_3d_valid.any() and not batch.joints_3d_m.any()


def test_given_pose_by_source():
    samples = make_samples(2, sides=("right", "left"))
    keypoints = [DetectedKeypoints(samples[0].joints_2d_px + 3, np.linspace(0, 1, 21)), None]
    labels = stack_labels(samples, keypoints, [None, None])
    affine = np.tile(np.array([[0.5, 0, 0], [0, 0.5, 0.0]]), (2, 1, 1))
    detected = input_pose(labels, affine, CROP, "detected")
    annotated = input_pose(labels, affine, CROP, "annotated")
    np.testing.assert_allclose(detected[0, 1:, :2] - annotated[0, 1:, :2], 3 * 0.5 / CROP, atol=1e-6)
    np.testing.assert_allclose(detected[0, :, 2], np.linspace(0, 1, 21))
    assert not detected[0, 0].any() and not detected[1].any(), "unseen joints are 0, 0, 0"
    assert not input_pose(labels, affine, CROP, "none").any()

    for source in ("detected", "mixed"):
        config = tiny(
            f"data.keypoints.train_source={source}", "data.keypoints.drop_pose=0", "data.keypoints.drop_joint=0"
        )
        augmentation = draw_keypoint_augmentation(config.data.keypoints, 0, np.arange(2))
        undisturbed = dataclasses.replace(augmentation, noise=augmentation.noise * 0, use_detected=np.ones(2, bool))
        training = input_pose(labels, affine, CROP, undisturbed)
        np.testing.assert_allclose(training[0], detected[0])
        replaced = annotated[1] if source == "mixed" else detected[1]
        np.testing.assert_allclose(np.sort(training[1, :, 0]), np.sort(replaced[:, 0]))


def test_drawn_numbers_follow_the_recipe():
    config = tiny(
        "data.keypoints.train_source=mixed",
        "data.keypoints.noise=0.01",
        "data.keypoints.drop_joint=0.1",
        "data.keypoints.drop_pose=0.1",
        "data.augment.scale=0.3",
        "data.augment.rotation_deg=30",
        "data.augment.rotation_probability=0.6",
        "data.augment.erase_probability=0.3",
    ).data
    change = draw_image_augmentation(config.augment, 5, np.arange(4000))
    assert change.scale.min() >= 0.7 and change.scale.max() <= 1.3
    assert np.mean(change.rotation_rad != 0) == pytest.approx(0.6, abs=0.03)
    assert np.abs(change.rotation_rad).max() == pytest.approx(np.deg2rad(60), abs=0.02)
    assert np.abs(change.shift).max() <= 0.02 and 0.8 <= change.gain.min() <= change.gain.max() <= 1.2
    area = np.prod(change.erase_xyxy[:, 2:] - change.erase_xyxy[:, :2], axis=1)
    assert np.mean(area > 0) == pytest.approx(0.3, abs=0.03) and area.max() <= 0.33 + 1e-9
    assert change.erase_xyxy.min() >= 0 and change.erase_xyxy.max() <= 1 + 1e-9

    augmentation = draw_keypoint_augmentation(config.keypoints, 5, np.arange(4000))
    assert augmentation.use_detected.mean() == pytest.approx(0.5, abs=0.03)
    assert augmentation.noise.std() == pytest.approx(0.01, rel=0.02)
    assert augmentation.dropped.all(axis=1).mean() == pytest.approx(0.1, abs=0.02)
    seen = ~augmentation.dropped.all(axis=1)
    assert augmentation.dropped[seen].mean() == pytest.approx(0.1, abs=0.01)
    swapped = (augmentation.order != np.arange(21)).any(axis=1)
    assert swapped.mean() == pytest.approx(0.05, abs=0.015)
    assert (np.sort(augmentation.order, axis=1) == np.arange(21)).all() and (augmentation.order[:, 0] == 0).all()
    assert set((augmentation.order[swapped] != np.arange(21)).sum(axis=1)) == {8}


def test_numbers_of_a_sample_do_not_depend_on_its_batch():
    config = tiny().data
    whole = draw_image_augmentation(config.augment, 1, np.arange(10))
    part = draw_image_augmentation(config.augment, 1, np.array([7, 3]))
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name)[[7, 3]])
    other = draw_image_augmentation(config.augment, 2, np.arange(10))
    assert not np.array_equal(other.scale, whole.scale)
