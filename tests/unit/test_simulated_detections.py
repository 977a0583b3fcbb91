"""Simulated detections: a detector's errors, turned, scaled and added to annotated hands."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from maskhand.loading.augment import KeypointAugmentation, draw_keypoint_augmentation
from maskhand.loading.collate import (
    detected_pose,
    input_pose,
    make_batch,
    scaled_detections,
    simulated_detections,
    true_pose,
)
from maskhand.loading.detector_errors import DetectorErrors, measure_errors, read_errors, shipped_errors, write_errors
from maskhand.loading.labels import stack_labels
from maskhand.loading.loader import held_out_rows, train_batches
from maskhand.shards.sidecar_records import DetectedKeypoints
from support.hand_sets import make_samples, write_set
from support.loading_parts import CROP, interleave, same, take, tiny

QUIET = ("noise=0", "drop_joint=0", "drop_pose=0", "swap_fingers=0")


def keypoint_config(*overrides):
    return tiny(*(f"data.keypoints.{o}" for o in ("train_source=simulated", *overrides))).data.keypoints


def hands(count=6, seed=0):
    """Labels of right and left hands, detections with errors of a tenth of the hand, and turned crops."""
    rng = np.random.default_rng(seed)
    samples = make_samples(count, sides=("right", "left"), seed=seed)
    seen = [
        DetectedKeypoints(
            s.joints_2d_px + rng.normal(0, 6, (21, 2)),
            rng.uniform(0.2, 1, 21),
            z_px=rng.normal(0, 15, 21),
            world_m=s.joints_cam_m + rng.normal(0, 0.01, (21, 3)),
        )
        for s in samples
    ]
    angle, scale = rng.uniform(-3, 3, count), rng.uniform(0.3, 0.9, count)
    linear = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    affine = np.concatenate([linear * scale[:, None, None], rng.normal(0, 20, (count, 2, 1))], axis=2)
    return stack_labels(samples, seen, [None] * count), affine


def undisturbed(errors):
    count = len(errors)
    return KeypointAugmentation(
        np.zeros(count, bool), False, np.zeros((count, 21, 2)), np.tile(np.arange(21), (count, 1)),
        np.zeros((count, 21), bool), errors,
    )  # fmt: skip


def simulated_pose(labels, affine, augmentation):
    nobodys = np.zeros(len(labels.is_left), bool)
    return input_pose(simulated_detections(labels, augmentation.errors, nobodys), affine, CROP, augmentation)


def test_a_hands_own_error_gives_back_its_detection_in_any_crop(tmp_path):
    labels, affine = hands()
    measured = measure_errors(detected_pose(labels, affine, CROP), true_pose(labels, affine, CROP))
    write_errors(tmp_path / "errors.npz", measured)
    stored = read_errors(tmp_path / "errors.npz")
    other_affine = hands(seed=1)[1]
    own = (np.arange(6) + 0.5) / 6
    for errors, tolerance in ((measured, 1e-9), (stored, 3e-3)):
        found = simulated_pose(labels, other_affine, undisturbed(errors.drawn(own, np.ones(6))))
        np.testing.assert_allclose(found, input_pose(labels, other_affine, CROP, "detected"), atol=tolerance)


def test_the_error_is_that_of_brute_force():
    labels, affine = hands(3)
    true = true_pose(labels, affine, CROP)
    rng = np.random.default_rng(2)
    errors = DetectorErrors(rng.normal(0, 0.1, (3, 21, 3)), rng.normal(0, 0.02, (3, 21, 3)), rng.uniform(0, 1, (3, 21)))
    changed = errors.added_to(true)
    for k in range(3):
        points = true[k, :, :2]
        dx, dy = points[[5, 9, 13, 17]].mean(0) - points[0]
        back = -math.atan2(dx, -dy)  # turns the hand's direction to straight up
        upright = np.array([[math.cos(back), -math.sin(back)], [math.sin(back), math.cos(back)]])
        side = np.ptp(points @ upright.T, axis=0).max()
        for j in range(21):
            expected = points[j] + side * upright.T @ errors.relief[k, j, :2]
            np.testing.assert_allclose(changed[k, j, :2], expected)
            np.testing.assert_allclose(changed[k, j, 2], errors.confidence[k, j])
            np.testing.assert_allclose(changed[k, j, 3], true[k, j, 3] + side * errors.relief[k, j, 2])
            world = true[k, j, 4:6] + upright.T @ errors.world_m[k, j, :2]
            np.testing.assert_allclose(changed[k, j, 4:], [*world, true[k, j, 6] + errors.world_m[k, j, 2]])


def test_without_error_the_annotated_hand_remains_and_no_depth_is_made_up():
    labels, affine = hands()
    augmentation = draw_keypoint_augmentation(keypoint_config("error_scale=[0, 0]", *QUIET), 0, np.arange(6))
    np.testing.assert_allclose(simulated_pose(labels, affine, augmentation), true_pose(labels, affine, CROP), atol=1e-9)
    flat = dataclasses.replace(labels, joints_3d_m=labels.joints_3d_m * 0, joints_3d_valid=labels.joints_3d_valid * 0)
    augmentation = draw_keypoint_augmentation(keypoint_config("error_scale=[1, 1]", *QUIET), 0, np.arange(6))
    pose = simulated_pose(flat, affine, augmentation)
    assert pose[..., :3].any() and not pose[..., 3:].any()


def test_half_of_the_hands_keep_their_own_detections():
    labels, affine = hands(200)
    missed = np.arange(200) % 5 == 0  # nothing was detected: these have simulated ones, whichever half they are in
    labels = dataclasses.replace(labels, detected_conf=labels.detected_conf * ~missed[:, None])
    config = keypoint_config("train_source=detected_simulated", "error_scale=[0, 0]", *QUIET)
    augmentation = draw_keypoint_augmentation(config, 0, np.arange(200))
    kept = augmentation.takes_detected(labels.detected_conf)
    assert 60 < kept.sum() < 100 and not (kept & missed).any()
    given = simulated_detections(labels, augmentation.errors, kept)
    pose = input_pose(given, affine, CROP, augmentation)
    expected = np.where(kept[:, None, None], detected_pose(labels, affine, CROP), true_pose(labels, affine, CROP))
    np.testing.assert_allclose(pose, expected, atol=1e-9)


def test_a_detections_own_error_shrinks_towards_the_truth():
    labels, affine = hands()
    flat = dataclasses.replace(  # a hand without depth, and a joint without any annotation: nothing to shrink towards
        labels,
        joints_3d_valid=labels.joints_3d_valid * np.array([1, 1, 0, 1, 1, 1])[:, None],
        joints_2d_conf=labels.joints_2d_conf * (np.arange(21) != 7),
    )
    factor = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
    found, true, scaled = (
        make(given, affine, CROP)
        for make, given in (
            (detected_pose, flat),
            (true_pose, flat),
            (detected_pose, scaled_detections(flat, factor)),
        )
    )
    expected = true + factor[:, None, None] * (found - true)
    expected[..., 2] = found[..., 2] ** factor[:, None]
    expected[:, 7] = found[:, 7]
    expected[2, :, 3:] = found[2, :, 3:]
    np.testing.assert_allclose(scaled, expected, atol=1e-9)
    missed = dataclasses.replace(flat, detected_conf=flat.detected_conf * 0)
    assert not scaled_detections(missed, factor).detected_conf.any()


def test_the_scale_of_detections_is_drawn_where_they_are_read():
    rows = np.arange(4000)
    config = keypoint_config("train_source=detected_simulated", "detected_scale=[0.2, 1.2]", *QUIET)
    drawn = draw_keypoint_augmentation(config, 0, rows)
    scale = drawn.detected_scale
    assert scale.min() < 0.21 and scale.max() > 1.19 and scale.mean() == pytest.approx(0.7, abs=0.02)
    before = draw_keypoint_augmentation(keypoint_config("train_source=detected_simulated", *QUIET), 0, rows)
    assert before.detected_scale is None
    np.testing.assert_array_equal(before.errors.relief, drawn.errors.relief)
    assert draw_keypoint_augmentation(keypoint_config("detected_scale=[0.2, 1.2]"), 0, rows).detected_scale is None
    labels, _ = hands(200)
    exact = keypoint_config("train_source=detected", "detected_scale=[0, 0]", *QUIET)
    batch = make_batch(
        labels, None, crop_px=CROP, box_scale=1.2, keypoints=draw_keypoint_augmentation(exact, 0, rows[:200])
    )
    np.testing.assert_allclose(batch.keypoints_2d[..., :2], batch.joints_2d, atol=1e-6)


def test_confidence_and_missed_hands_follow_the_scale():
    bank = shipped_errors()
    is_found = (bank.confidence > 0).any(axis=1)
    missed = (~is_found).mean()
    assert len(bank) == 1600 and 0.005 < missed < 0.02 and is_found[: is_found.sum()].all(), "missed hands come last"
    everyone = (np.arange(160_000) + 0.5) / 160_000
    for scale, rate in ((0.0, 0.0), (0.5, 0.5 * missed), (1.0, missed)):
        drawn = bank.drawn(everyone, np.full(len(everyone), scale))
        assert (~(drawn.confidence > 0).any(axis=1)).mean() == pytest.approx(rate, rel=0.02)
    half, whole = (bank.drawn(np.array([0.3]), np.array([s])) for s in (0.5, 1.0))
    found = int((bank.confidence > 0).any(axis=1).sum())
    np.testing.assert_allclose(half.confidence[0] ** 2, bank.confidence[int(0.3 * (found + 0.5 * (1600 - found)))])
    assert whole.confidence.max() <= 1
    assert not bank.drawn(np.array([0.9999]), np.array([1.5])).confidence.any()  # beyond the bank's share
    assert np.linalg.norm(bank.relief[:found, :, :2], axis=2).mean() == pytest.approx(0.09, abs=0.01)


def test_other_sources_draw_what_they_drew_and_a_range_is_ordered():
    rows = np.array([3, 99, 12])
    before = draw_keypoint_augmentation(keypoint_config("train_source=annotated"), 5, rows)
    now = draw_keypoint_augmentation(keypoint_config(), 5, rows)
    assert before.errors is None and now.errors is not None
    for name in ("noise", "order", "dropped", "use_detected"):
        np.testing.assert_array_equal(getattr(before, name), getattr(now, name))
    alone = draw_keypoint_augmentation(keypoint_config(), 5, rows[1:2])
    np.testing.assert_array_equal(alone.errors.relief[0], now.errors.relief[1])
    with pytest.raises(ValueError, match="smaller factor first"):
        keypoint_config("error_scale=[1.0, 0.1]")
    with pytest.raises(ValueError, match=r"detected_scale.*smaller factor first"):
        keypoint_config("detected_scale=[1.0, 0.1]")


def test_batches_need_no_sidecar_and_do_not_depend_on_the_workers(tmp_path):
    from maskhand.annotate.mano_targets import annotate_mano

    uri = str(tmp_path / "dots" / "training")
    write_set(uri, make_samples(12, sides=("right", "left")), shard_size=3)
    annotate_mano(uri)
    recipe = tiny(
        "data.train={dots/training: 1.0}", "training.optim.batch=8", "data.crop_px=64",
        "data.keypoints.train_source=simulated",
    )  # fmt: skip
    alone = take(train_batches(recipe, str(tmp_path)), 2)
    ranks = [take(train_batches(recipe, str(tmp_path), rank=r, world=2), 2) for r in range(2)]
    for step, expected in enumerate(alone):
        assert same(interleave([r[step] for r in ranks]), expected)
    assert alone[0].keypoints_2d[..., 3:].any()


def test_held_out_hands_of_a_set_without_detections_have_simulated_ones(tmp_path):
    write_set(uri := str(tmp_path / "set"), make_samples(12, seed=4))
    settings = ("data.held_out=0.5", "data.keypoints.eval_source=detected", "data.keypoints.drop_pose=1")
    wrong = tiny(*settings, "data.keypoints.train_source=simulated", "data.keypoints.error_scale=[0.5,0.5]")
    right = tiny(*settings, "data.keypoints.train_source=simulated", "data.keypoints.error_scale=[0,0]")
    annotated = tiny(*settings, "data.keypoints.train_source=annotated")

    def pose(recipe, batch):
        return np.concatenate([rows.hands.keypoints_2d.numpy() for rows in held_out_rows(recipe, uri, batch)])

    np.testing.assert_array_equal(pose(wrong, 2), pose(wrong, 5))
    np.testing.assert_allclose(pose(right, 5)[..., :2], pose(annotated, 5)[..., :2], atol=1e-6)
    error = np.linalg.norm((pose(wrong, 5) - pose(right, 5))[..., :2], axis=2)
    assert 0.005 < error.mean() < 0.2
