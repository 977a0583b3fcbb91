"""Hands before their images' cameras: a hand that is right stands where it is, whatever camera, side and crop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from maskhand.batch import HandBatch, HandPrediction, PoseTokens
from maskhand.conventions import MIRROR_POINT, Side
from maskhand.evaluation.placed import place
from maskhand.hand import camera
from maskhand.hand.assumed_camera import FOCAL, assumed_camera
from maskhand.hand.camera import MIN_SEEN, project_crop, translation_on_points
from maskhand.loading.photo import photo_batch
from maskhand.placement import place_hands
from maskhand.predict.placed import place_predicted
from maskhand.recipe_files import load_recipe
from maskhand.sample import Camera
from maskhand.shards.reader import ShardSample
from support.hand_sets import make_samples
from support.known_hands import known_hands, pixels

CONFIG = load_recipe("tiny", []).data
SIZE = (224, 200)
WIDE = np.array([[170.0, 0, 60], [0, 230.0, 150], [0, 0, 1]])
"""Other focal lengths for x and y, and a principal point far from the middle: every hand is seen aslant."""


@dataclass(frozen=True)
class Seen:
    """N true hands of both sides in images, as a perfect network predicts them."""

    joints_cam_m: np.ndarray
    """(N, 21, 3) as they were seen."""
    joints_px: np.ndarray
    sides: list[Side]
    K_px: np.ndarray
    batch: HandBatch
    prediction: HandPrediction


def seen_hands(count: int = 40, seed: int = 0) -> Seen:
    """Hands of the pose prior anywhere in the image, from 25 to 80 cm away."""
    rng = np.random.default_rng(seed)
    known = known_hands(count, seed)
    sides: list[Side] = [("right", "left")[k % 2] for k in range(count)]
    mirror = np.where(np.array(sides)[:, None] == "left", MIRROR_POINT, 1.0)
    model = known.joints_m - known.transl_m[:, None]  # of right hands, before translation
    depth = rng.uniform(0.25, 0.8, count)
    where = (rng.uniform((30, 30), (190, 170), (count, 2)) - WIDE[:2, 2]) / np.diag(WIDE)[:2]
    transl = np.concatenate([where, np.ones((count, 1))], axis=1) * depth[:, None]
    joints = (model - model.mean(1, keepdims=True)) * mirror[:, None] + transl[:, None]
    K = np.tile(WIDE, (count, 1, 1))
    points = pixels(joints, K)
    rows = [
        photo_batch(
            np.zeros((SIZE[1], SIZE[0], 3), np.uint8),
            np.concatenate([points[k].min(0), points[k].max(0)])[None],
            [sides[k]],
            CONFIG,
            keypoints_px=points[k : k + 1],
            confidence=rng.uniform(0.2, 1, (1, 21)),
        )
        for k in range(count)
    ]
    fields = {name: torch.cat([getattr(row, name) for row in rows]) for name in vars(rows[0])}
    wrong_camera = torch.tensor([7.0, 0.03, -0.05]).expand(count, 3)
    prediction = HandPrediction(
        rotmats=torch.eye(3).expand(count, 16, 3, 3),
        betas=torch.zeros(count, 10),
        camera=wrong_camera,
        vertices_m=torch.from_numpy(known.vertices_m - known.transl_m[:, None]).float(),
        joints_m=torch.from_numpy(model).float(),
        joints_2d=torch.zeros(count, 21, 2),
        tokens=PoseTokens(torch.zeros(count, 16, dtype=torch.int64), torch.ones(count, 16)),
        token_confidence_of_joints=torch.ones(count, 16),
        log_probability=torch.zeros(count),
        score=torch.zeros(count),
    )
    return Seen(joints, points, sides, K, HandBatch(**fields), prediction)


def far_mm(points_m: np.ndarray, truth_m: np.ndarray) -> float:
    return 1e3 * float(np.linalg.norm(points_m - truth_m, axis=-1).max())


def test_a_true_hand_stands_where_it_is():
    """Aslant, near, with two focal lengths, right and left: nothing is lost on the way from the crop."""
    seen = seen_hands()
    placed = place_hands(seen.prediction, seen.batch, seen.K_px, CONFIG.crop_px, "keypoints")
    joints = placed.to_camera(seen.prediction.joints_m)
    assert placed.by_keypoints.all() and far_mm(joints, seen.joints_cam_m) < 0.01
    np.testing.assert_allclose(placed.pixels(joints), seen.joints_px, atol=0.01)


def test_the_networks_camera_places_by_the_same_way():
    """A crop in the middle of its image, seen by the crop camera itself: the camera's own hand, not one at the depth
    of its middle."""
    size, count = 256, 20
    known = known_hands(count, 3)
    model = torch.from_numpy(known.joints_m - known.transl_m[:, None])
    side_px = 100.0
    box = np.array([[127.5 - 30, 127.5 - 30, 127.5 + 30, 127.5 + 30]]).repeat(count, 0)
    sides: list[Side] = ["left", "right"] * (count // 2)
    batch = photo_batch(np.zeros((size, size, 3), np.uint8), box, sides, CONFIG)
    side_px = CONFIG.crop_px / batch.crop_from_image[0, 0, 0].item()
    crop_camera = torch.tensor([[12.0, 0.01, -0.02]]).expand(count, 3)
    prediction = replace(seen_hands(count).prediction, camera=crop_camera, joints_m=model.float())
    K = np.tile(assumed_camera((size, size), FOCAL * side_px), (count, 1, 1))
    for placed_by in ("keypoints", "model"):  # no keypoints are given
        placed = place_hands(prediction, batch, K, CONFIG.crop_px, placed_by)
        assert not placed.by_keypoints.any()
        in_image = placed.pixels(placed.to_camera(prediction.joints_m))
        crop = project_crop(model, crop_camera.double()).numpy()
        crop[::2, :, 0] *= -1
        np.testing.assert_allclose((in_image - 127.5) / side_px, crop, atol=1e-4)
        expected = np.tile([0.01, -0.02, 2 * FOCAL / 12], (count, 1)) * np.where(np.arange(count) % 2, 1, -1)[
            :, None
        ] ** np.array([1, 0, 0])
        np.testing.assert_allclose(placed.translation_m, expected, atol=2e-4)


def test_unseen_keypoints_take_no_part_and_too_few_place_nothing():
    seen = seen_hands()
    points = seen.batch.keypoints_2d.clone()
    points[:, ::2] = 0
    half = replace(seen.batch, keypoints_2d=points)
    placed = place_hands(seen.prediction, half, seen.K_px, CONFIG.crop_px, "keypoints")
    assert far_mm(placed.to_camera(seen.prediction.joints_m), seen.joints_cam_m) < 0.01

    points = seen.batch.keypoints_2d.clone()
    points[::2, MIN_SEEN - 1 :] = 0
    few = replace(seen.batch, keypoints_2d=points)
    by_model = place_hands(seen.prediction, few, seen.K_px, CONFIG.crop_px, "model")
    mixed = place_hands(seen.prediction, few, seen.K_px, CONFIG.crop_px, "keypoints")
    assert mixed.by_keypoints.tolist() == [False, True] * 20
    np.testing.assert_array_equal(mixed.translation_m[::2], by_model.translation_m[::2])
    assert np.linalg.norm(mixed.translation_m - by_model.translation_m, axis=1)[1::2].min() > 0.01


def test_evaluation_and_predict_place_alike():
    """The same hand with the same keypoints, in a set and in a photo."""
    samples = [
        replace(sample, image_size_px=(200, 160), camera=Camera(WIDE))
        for sample in make_samples(6, sides=("right", "left"))
    ]
    rng = np.random.default_rng(2)
    points = np.stack([sample.joints_2d_px + rng.normal(0, 2, (21, 2)) for sample in samples]).astype(np.float32)
    batch = photo_batch(
        np.zeros((160, 200, 3), np.uint8),
        np.stack([sample.box_xyxy_px for sample in samples]),
        [sample.side for sample in samples],
        CONFIG,
        keypoints_px=points,
        confidence=rng.uniform(0.1, 1, (6, 21)),
    )
    prediction = seen_hands(6).prediction
    rows = [ShardSample(sample, k, {}) for k, sample in enumerate(samples)]
    for placed_by in ("keypoints", "model"):
        evaluated = place(
            prediction, torch.zeros(6, dtype=torch.bool), batch, rows, CONFIG.crop_px, [None] * 6, placed_by
        )
        photo = place_predicted(prediction, batch, np.tile(WIDE, (6, 1, 1)), CONFIG.crop_px, placed_by)
        for k, hand in enumerate(photo):
            np.testing.assert_allclose(evaluated.joints_cam_m[k], hand.joints_cam_m, atol=1e-6)
            np.testing.assert_allclose(evaluated.vertices_cam_m[k], hand.vertices_cam_m, atol=1e-6)
            np.testing.assert_allclose(evaluated.joints_px[k], hand.joints_px, atol=1e-3)


def test_a_wrong_pose_does_not_push_the_hand_away():
    """Fitted by least squares another hand's joints would stand a good deal too far away."""
    known = known_hands(200, 5)
    model = known.joints_m - known.transl_m[:, None]
    wrong = model[np.random.default_rng(5).permutation(200)]
    found = translation_on_points(wrong, known.joints_px, np.ones((200, 21)), known.K_px)
    true_depth, depth = known.joints_m[..., 2].mean(1), (wrong + found[:, None])[..., 2].mean(1)
    assert np.median(depth / true_depth) == pytest.approx(1, abs=0.05)

    def fitted(k: int) -> float:
        def off(transl):
            return (pixels(wrong[k : k + 1] + transl, known.K_px[k : k + 1])[0] - known.joints_px[k]).ravel()

        return float((wrong[k] + least_squares(off, known.transl_m[k]).x)[:, 2].mean())

    assert np.median([fitted(k) / true_depth[k] for k in range(40)]) > 1.1


def test_a_camera_that_turns_sees_the_same_hand():
    """The place does not depend on where in the image the hand is, though its pose be wrong."""
    known = known_hands(20, 8)
    rng = np.random.default_rng(8)
    wrong = known.joints_m - known.transl_m[:, None] + rng.normal(0, 0.008, (20, 21, 3))
    weight = rng.uniform(0, 1, (20, 21))
    straight = translation_on_points(wrong, known.joints_px, weight, known.K_px)
    turn = Rotation.from_euler("yx", [25, -20], degrees=True).as_matrix()
    aslant_px = pixels(known.joints_m @ turn.T, known.K_px)
    aslant = translation_on_points(wrong @ turn.T, aslant_px, weight, known.K_px)
    np.testing.assert_allclose(aslant, straight @ turn.T, atol=2e-3)


def test_a_mistaken_finger_moves_the_hand_little(monkeypatch):
    """A detector that sees the index where the little finger is: half of the error that plain weights make."""
    known = known_hands(60, 9)
    mistaken = known.joints_px.copy()
    mistaken[:, 5:9] = known.joints_px[:, 17:21]

    def median_error_mm() -> float:
        model = known.joints_m - known.transl_m[:, None]
        found = translation_on_points(model, mistaken, np.ones((60, 21)), known.K_px)
        return 1e3 * float(np.median(np.linalg.norm(found - known.transl_m, axis=1)))

    error = median_error_mm()
    monkeypatch.setattr(camera, "REWEIGHTINGS", 0)
    assert error < 0.5 * median_error_mm()
