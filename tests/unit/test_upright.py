"""Upright crops: whichever way a hand is turned, the network sees the same one, and results are in the image's axes."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from maskhand.annotate import by_model
from maskhand.annotate.upright_crop import upright_angle
from maskhand.batch import HandBatch, HandPrediction, PoseTokens
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, UPRIGHT
from maskhand.evaluation.placed import place
from maskhand.evaluation.truth import ground_truth
from maskhand.evaluation.views import HandView
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix, geodesic_rad, random_rotations
from maskhand.loading.augment import ImageAugmentation, draw_keypoint_augmentation
from maskhand.loading.labels import stack_labels
from maskhand.loading.upright import rest_direction, stand_upright, upright_boxes
from maskhand.placement import image_cameras, image_from_crop_axes, in_crop_axes, in_image_axes, place_hands
from maskhand.predict.fit import _crop_camera
from maskhand.predict.placed import place_predicted
from maskhand.sample import HandSample
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar_records import DetectedKeypoints
from support.hand_sets import make_samples
from support.loading_parts import CROP, batch_of, tiny


def turned(sample: HandSample, angle_rad: float) -> HandSample:
    """The hand, its square image and a square box about the principal point, turned clockwise."""
    turn = Rotation.from_rotvec([0, 0, angle_rad]).as_matrix()
    center = sample.camera.K_px[:2, 2]
    linear = turn[:2, :2]
    image = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR)
    affine = np.hstack([linear, (center - linear @ center)[:, None]])
    image = cv2.warpAffine(image, affine, sample.image_size_px, borderMode=cv2.BORDER_REPLICATE)
    pose = sample.mano.pose_aa.copy()
    pose[0] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[0])).as_rotvec()
    wrist = sample.joints_cam_m[0]
    joints_px = (sample.joints_2d_px - center) @ linear.T + center
    reach = np.abs(sample.joints_2d_px - center).max()
    return dataclasses.replace(
        sample,
        image=cv2.imencode(".png", image)[1].tobytes(),
        box_xyxy_px=np.concatenate([center - reach, center + reach]).astype(np.float32),
        joints_2d_px=joints_px.astype(np.float32),
        joints_cam_m=(sample.joints_cam_m @ turn.T).astype(np.float32),
        vertices_cam_m=(sample.vertices_cam_m @ turn.T).astype(np.float32),
        mano=dataclasses.replace(
            sample.mano, pose_aa=pose, transl_cam_m=(turn @ wrist - wrist + sample.mano.transl_cam_m).astype(np.float32)
        ),
    )


def perfect(samples: list[HandSample], **how) -> tuple[HandBatch, HandPrediction]:
    """Upright crops, and what a network without an error predicts for them, in the crops' axes."""
    batch = batch_of(samples, upright=True, **how)
    mesh, count = ManoLayer.from_default()(batch.rotmats, batch.betas), len(samples)
    camera = _crop_camera(mesh.joints_m, batch)
    return batch, HandPrediction(
        rotmats=batch.rotmats,
        betas=batch.betas,
        camera=camera,
        vertices_m=mesh.vertices_m,
        joints_m=mesh.joints_m,
        joints_2d=torch.zeros(count, 21, 2),
        tokens=PoseTokens(torch.zeros(count, 16, dtype=torch.int64), torch.ones(count, 16)),
        token_confidence_of_joints=torch.ones(count, 16),
        log_probability=torch.zeros(count),
        score=torch.zeros(count),
    )


def rows_of(samples: list[HandSample]) -> list[ShardSample]:
    return [ShardSample(sample, k, {}) for k, sample in enumerate(samples)]


def test_a_hand_gives_the_same_crop_whichever_way_it_is_turned():
    """Exactly the same pixels by right angles, where the given box turns with the hand."""
    (sample,) = make_samples(1, size=(320, 320))
    batch = batch_of([turned(sample, k * np.pi / 4) for k in range(8)], upright=True)
    across, up = (batch.joints_2d[:, UPRIGHT[1]] - batch.joints_2d[:, UPRIGHT[0]]).T
    assert across.abs().max() < 1e-6 and (up < 0).all()
    for name in ("joints_3d_m", "rotmats"):
        labels = getattr(batch, name)
        assert torch.allclose(labels, labels[:1].expand_as(labels), atol=2e-5), name
    centered = batch.joints_2d - batch.joints_2d.mean(1, keepdim=True)
    size = torch.linalg.vector_norm(centered, dim=(1, 2), keepdim=True)
    assert torch.allclose(centered / size, (centered / size)[:1].expand_as(centered), atol=1e-5)
    assert size.max() / size.min() < 2**0.5
    by_right_angles = batch[::2]
    assert torch.allclose(by_right_angles.joints_2d, by_right_angles.joints_2d[:1].expand(4, -1, -1), atol=1e-4)
    off = (by_right_angles.pixels[1:, ..., :3].float() - by_right_angles.pixels[:1, ..., :3].float()).abs()
    assert off.mean() < 1.5 and batch.pixels[..., :3].float().std() > 20


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_fit_their_crop_after_any_turn(side):
    samples = make_samples(6, sides=(side,), seed=3)
    change = dataclasses.replace(ImageAugmentation.none(6), rotation_rad=np.array([0, 0.5, -1, 3, 0.1, -0.2]))
    batch = batch_of(samples, change, upright=True)
    mesh = ManoLayer.from_default()(batch.rotmats, batch.betas)
    assert torch.allclose(mesh.joints_m - mesh.joints_m[:, :1], batch.joints_3d_m, atol=2e-5)
    mirror = np.float64(MIRROR_POINT) if side == "left" else np.ones(3)
    relative = (batch.joints_3d_m.double() @ image_from_crop_axes(batch).mT).numpy() * mirror
    for sample, points, affine, in_crop in zip(
        samples, relative, batch.crop_from_image.numpy(), batch.joints_2d.numpy(), strict=True
    ):
        pixels = sample.camera.project(points + sample.joints_cam_m[0])
        if side == "left":
            pixels[:, 0] = sample.image_size_px[0] - 1 - pixels[:, 0]
        np.testing.assert_allclose((pixels @ affine[:, :2].T + affine[:, 2]) / CROP - 0.5, in_crop, atol=1e-4)
    across, up = (batch.joints_2d[:, UPRIGHT[1]] - batch.joints_2d[:, UPRIGHT[0]]).double().numpy().T
    np.testing.assert_allclose(
        np.exp(1j * (np.arctan2(up, across) + np.pi / 2)), np.exp(1j * change.rotation_rad), atol=1e-4
    )


def test_a_true_hand_comes_back_in_the_axes_of_its_image():
    """Placed for photos, benchmark files and pseudo ground truth, by keypoints and by the network's own camera."""
    samples = make_samples(12, sides=("right", "left"), seed=5)
    batch, in_crop = perfect(samples)
    assert geodesic_rad(image_from_crop_axes(batch), torch.eye(3).double()).max() > 1
    hands, rows, K = in_image_axes(in_crop, batch), rows_of(samples), image_cameras(samples)
    files = place(hands, torch.zeros(12, dtype=torch.bool), batch, rows, CROP, [None] * 12, "keypoints")
    np.testing.assert_allclose(files.joints_cam_m, np.stack([s.joints_cam_m for s in samples]), atol=2e-4)
    np.testing.assert_allclose(files.vertices_cam_m, np.stack([s.vertices_cam_m for s in samples]), atol=2e-4)
    for k, sample in enumerate(samples):
        photo = place_predicted(hands[k : k + 1], batch[k : k + 1], K[k : k + 1], CROP, "keypoints")[0]
        np.testing.assert_allclose(photo.joints_cam_m, sample.joints_cam_m, atol=2e-4)
        found, true = (axis_angle_to_matrix(torch.tensor(p).double()) for p in (photo.pose_aa, sample.mano.pose_aa))
        assert geodesic_rad(found, true).max() < 1e-3
    by_model_px = place_hands(hands, batch, K, CROP, "model")
    missed = by_model_px.pixels(by_model_px.to_camera(hands.joints_m)) - np.stack([s.joints_2d_px for s in samples])
    assert np.abs(missed).max() < 3

    truth = ground_truth(batch, rows, ManoLayer.from_default())
    as_today = ground_truth(batch_of(samples), rows, ManoLayer.from_default())
    assert torch.allclose(truth.joints_m, as_today.joints_m, atol=1e-6)
    assert torch.allclose(hands.joints_m - hands.joints_m[:, :1], truth.joints_m, atol=2e-5)
    assert torch.allclose(in_crop_axes(hands.joints_m, batch), in_crop.joints_m, atol=1e-6)


def test_pseudo_ground_truth_is_in_the_axes_of_the_image(monkeypatch):
    samples = make_samples(4, sides=("right", "left"), seed=6)
    batch, in_crop = perfect(samples)
    shown = type("Rows", (), {"hands": batch, "unreadable": np.zeros(4, bool)})
    monkeypatch.setattr(by_model, "eval_rows", lambda *_, **__: shown)
    monkeypatch.setattr(by_model, "predict", lambda *_: in_crop)
    model = torch.nn.Linear(1, 1)
    recipe = tiny(f"data.crop_px={CROP}")
    for sample, target in zip(
        samples,
        by_model._entries(rows_of(samples), type("Bundle", (), {"model": model, "recipe": recipe})),
        strict=True,
    ):
        left = sample.side == "left"
        pose, transl = sample.mano.pose_aa, sample.mano.transl_cam_m
        pose, transl = (pose * MIRROR_AXIS_ANGLE, transl * MIRROR_POINT) if left else (pose, transl)
        found, true = (axis_angle_to_matrix(torch.tensor(p).double()) for p in (target.pose.pose_aa, pose))
        assert target.mirrored == left and geodesic_rad(found, true).max() < 1e-3
        np.testing.assert_allclose(target.pose.transl_cam_m, transl, atol=5e-4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_report_draws_a_hand_over_its_turned_crop(side):
    samples, mano, tile_px = make_samples(4, sides=(side,), seed=8), ManoLayer.from_default(), 2 * CROP
    batch = batch_of(samples, upright=True)
    for k, sample in enumerate(samples):
        view = HandView(ShardSample(sample, k, {}), batch.crop_from_image[k].numpy(), CROP, tile_px, False)
        drawn = view.mesh(sample.vertices_cam_m, sample.camera.K_px, mano)
        x, y = ((batch.joints_2d[k].numpy() + 0.5) * tile_px).round().astype(int).T
        assert (drawn != view.image).any(-1)[y, x].mean() > 0.9


def test_crops_that_are_not_turned_change_no_number():
    samples = make_samples(4, sides=("right", "left"))
    _, hands = perfect(samples)
    batch = batch_of(samples)
    same = in_image_axes(hands, batch)
    assert all(torch.equal(getattr(same, name), getattr(hands, name)) for name in ("rotmats", "vertices_m", "joints_m"))
    assert torch.equal(in_crop_axes(hands.joints_m, batch), hands.joints_m)
    untold = batch_of(samples, keypoints="none", upright=True)
    assert torch.allclose(untold.crop_from_image, batch_of(samples, keypoints="none").crop_from_image, atol=1e-9)


def test_the_turn_is_that_of_the_given_pose_before_its_noise():
    samples = make_samples(3)
    detected = [DetectedKeypoints(s.joints_2d_px[:, ::-1].copy(), np.ones(21)) for s in samples[:2]]
    detected[1].confidence[UPRIGHT[1]] = 0
    labels = stack_labels(samples, [*detected, None], [None] * 3)
    of_joints = np.array([-upright_angle(s.joints_2d_px) for s in samples])
    of_detection = np.array([-upright_angle(detected[0].keypoints_px), 0.0, 0.0])

    def same(source, expected):
        np.testing.assert_allclose(np.exp(1j * upright_boxes(labels, source).turn_rad), np.exp(1j * expected))

    same("annotated", of_joints)
    same("detected", of_detection)
    same("none", np.zeros(3))
    drawn = draw_keypoint_augmentation(
        tiny("data.keypoints.train_source=mixed", "data.keypoints.drop_pose=0").data.keypoints, 0, np.arange(3)
    )
    drawn = dataclasses.replace(drawn, use_detected=np.array([True, False, True]), noise=drawn.noise + 0.3)
    same(drawn, np.array([of_detection[0], *of_joints[1:]]))


@pytest.mark.parametrize("wrong", [False, True])
def test_the_box_of_a_turned_hand_holds_its_keypoints_and_an_ellipse_within_the_turned_box(wrong):
    rng, samples = np.random.default_rng(1), make_samples(20, seed=2)
    points = [rng.uniform(-300, 500, (21, 2)) if wrong else s.joints_2d_px + rng.normal(0, 3, (21, 2)) for s in samples]
    labels = stack_labels(samples, [DetectedKeypoints(p.astype(np.float32), np.ones(21)) for p in points], [None] * 20)
    boxes = upright_boxes(labels, "detected")
    circle = np.exp(2j * np.pi * np.arange(3600) / 3600)
    for k, box in enumerate(labels.box_xyxy_px.astype(float)):
        c, s = np.cos(boxes.turn_rad[k]), np.sin(boxes.turn_rad[k])
        turn, center, half = np.array([[c, -s], [s, c]]), (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        ellipse = np.stack([circle.real, circle.imag], 1) * half @ turn.T
        corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * half @ turn.T
        inside = np.clip((points[k] - center) @ turn.T, corners.min(0), corners.max(0))
        held = np.concatenate([ellipse, inside])
        np.testing.assert_allclose(boxes.box_xyxy_px[k], [*held.min(0), *held.max(0)], atol=1e-2)
        middle = (boxes.box_xyxy_px[k, :2] + boxes.box_xyxy_px[k, 2:]) / 2
        np.testing.assert_allclose(boxes.center_px[k], center + turn.T @ middle, atol=1e-6)


def test_the_tokenizers_poses_stand_upright_and_keep_their_fingers():
    mano = ManoLayer.from_default()
    poses = axis_angle_to_matrix(0.3 * torch.randn(64, 16, 3, generator=torch.Generator().manual_seed(0)))
    poses[:, 0] = random_rotations(64, torch.Generator().manual_seed(1))
    upright = stand_upright(poses, rest_direction(mano))
    joints = mano(upright, torch.zeros(64, 10)).joints_m
    across, up, _ = (joints[:, UPRIGHT[1]] - joints[:, UPRIGHT[0]]).T
    assert across.abs().max() < 1e-6 and (up < 0).all()
    assert torch.equal(upright[:, 1:], poses[:, 1:])
    about = upright[:, 0] @ poses[:, 0].mT
    assert torch.allclose(about[:, 2], torch.tensor([0.0, 0, 1]).expand(64, 3), atol=1e-6)
