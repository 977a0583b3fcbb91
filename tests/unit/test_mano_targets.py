"""MANO sidecars: canonical form, round trip against the joints, rejects counted by reason."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from maskhand.annotate.mano_targets import AnnotateMano, annotate_mano, right_hand_form
from maskhand.conventions import MIRROR_POINT
from maskhand.evaluation.mean_pose import mean_pose_of_sets
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.labels import good_target
from maskhand.loading.loader import eval_range
from maskhand.loading.poses import read_mano_poses
from maskhand.recipe_files import load_recipe
from maskhand.sample import Camera, HandPose, SampleError
from maskhand.shards.layout import MANO, ShardError
from maskhand.shards.reader import ShardSample, ShardSet
from support.hand_sets import make_samples, write_set
from support.known_hands import known_hands, mesh


def _rows(samples):
    return [ShardSample(s, k, {}) for k, s in enumerate(samples)]


def _annotate(fingertip_vertices="smplx", limit=10.0):
    return AnnotateMano(str(default_hand_path("right")), fingertip_vertices, limit)


def _without_joints(sample):
    """Neither MANO parameters nor enough joints to fit any."""
    few = np.arange(21) < 7
    return dataclasses.replace(sample, mano=None, joints_3d_valid=few, joints_2d_conf=few.astype(np.float32))


def _possible_samples(count, sides, seed=0):
    """Samples of hands that the fitter can find again, without their parameters; and those parameters' joints."""
    truth = known_hands(count, seed)
    samples = []
    for k, sample in enumerate(make_samples(count, size=(224, 224), sides=sides)):
        joints, pixels, K = truth.joints_m[k], truth.joints_px[k], truth.K_px[k]
        if sample.side == "left":
            joints, pixels, K = joints * MIRROR_POINT, pixels * [-1, 1] + [223, 0], K.copy()
            K[0, 2] = 223 - K[0, 2]
        changes = {
            "joints_cam_m": joints.astype(np.float32),
            "joints_2d_px": pixels.astype(np.float32),
            "camera": Camera(K),
            "mano": None,
        }
        samples.append(dataclasses.replace(sample, **changes))
    return samples, truth


def test_missing_targets_of_both_sides_are_fitted_to_the_joints():
    samples, truth = _possible_samples(8, ("right", "left"))
    entries = _annotate()(_rows(samples))
    assert all(e.is_good and e.source == "fitted" and e.residual_mm < 1 for e in entries)
    assert [e.mirrored for e in entries] == [s.side == "left" for s in samples]
    _, vertices = mesh(
        *(np.stack([getattr(e.pose, name) for e in entries]) for name in ("pose_aa", "betas", "transl_cam_m"))
    )
    assert 1000 * np.linalg.norm(vertices - truth.vertices_m, axis=2).mean() < 1, "right-hand form, as annotated ones"


@pytest.mark.parametrize("camera", [True, False])
def test_missing_targets_are_fitted_to_keypoints_where_there_is_no_3d(camera):
    samples, _ = _possible_samples(6, ("right", "left"))
    flat = [dataclasses.replace(s, joints_cam_m=None, joints_3d_valid=None) for s in samples]
    entries = _annotate()(_rows(flat if camera else [dataclasses.replace(s, camera=None) for s in flat]))
    for sample, entry in zip(samples, entries, strict=True):
        assert entry.is_good and entry.residual_px < 2 and np.isnan(entry.residual_mm)
        joints = mesh(*(getattr(entry.pose, name)[None] for name in ("pose_aa", "betas", "transl_cam_m")))[0][0]
        if camera:
            seen = joints * (MIRROR_POINT if sample.side == "left" else 1)
            apart = np.linalg.norm(sample.camera.project(seen) - sample.joints_2d_px, axis=1).mean()
            assert apart == pytest.approx(entry.residual_px, abs=0.05)


def test_without_a_camera_a_mirrored_image_has_the_same_target():
    samples, _ = _possible_samples(2, ("right",))
    right = [dataclasses.replace(s, joints_cam_m=None, joints_3d_valid=None, camera=None) for s in samples]
    mirrored = [(s.joints_2d_px.astype(np.float64) * [-1, 1] + [223, 0]) for s in right]
    left = [dataclasses.replace(s, side="left", joints_2d_px=p) for s, p in zip(right, mirrored, strict=True)]
    for entry, other in zip(_annotate()(_rows(right)), _annotate()(_rows(left)), strict=True):
        for name in ("pose_aa", "betas", "transl_cam_m"):
            np.testing.assert_allclose(getattr(entry.pose, name), getattr(other.pose, name), atol=1e-6, err_msg=name)


def test_bad_fits_are_kept_but_flagged():
    samples, _ = _possible_samples(4, ("right",))
    samples = [
        dataclasses.replace(samples[0], joints_cam_m=np.full((21, 3), 0.5, np.float32)),
        dataclasses.replace(samples[1], joints_cam_m=samples[1].joints_cam_m[::-1].copy()),
        dataclasses.replace(samples[2], joints_cam_m=None, joints_2d_px=np.full((21, 2), 50, np.float32)),
        dataclasses.replace(samples[3], joints_cam_m=None, joints_2d_px=samples[3].joints_2d_px[::-1].copy()),
    ]
    entries = _annotate()(_rows(samples))
    assert [e.is_good for e in entries] == [False] * 4
    assert [e.fault for e in entries] == ["strange_shape", "far_off", "too_small", "far_off"]
    assert all(np.isfinite(e.pose.pose_aa).all() and np.isfinite(e.pose.betas).all() for e in entries)


def _seen(sample, joints, in_3d):
    """The sample with only these joints annotated, in space or in the image."""
    seen = np.isin(np.arange(21), joints)
    if in_3d:
        return dataclasses.replace(sample, joints_3d_valid=seen)
    return dataclasses.replace(sample, joints_cam_m=None, joints_3d_valid=None, joints_2d_conf=seen.astype(np.float32))


def _shrunk(sample, box_px):
    """The hand seen from so far away that the longer side of its keypoints' box is `box_px`."""
    scale = box_px / np.ptp(sample.joints_2d_px, axis=0).max()
    K = sample.camera.K_px * [[scale], [scale], [1]]
    return dataclasses.replace(
        sample, joints_cam_m=None, joints_3d_valid=None, joints_2d_px=sample.joints_2d_px * scale, camera=Camera(K)
    )


@pytest.mark.parametrize("in_3d", [True, False])
def test_a_fit_is_good_only_when_every_finger_was_seen(in_3d):
    """A glove of which 8 joints were seen is met to a tenth of a pixel, with the other fingers anywhere."""
    (sample,), _ = _possible_samples(1, ("right",))
    two_fingers, four_fingers = range(9), range(17)
    two_of_each = [2, 4, 5, 7, 9, 11, 14, 16, 17, 20]
    parts = (two_fingers, four_fingers, two_of_each, range(21))
    entries = _annotate()(_rows([_seen(sample, joints, in_3d) for joints in parts]))
    assert all((e.residual_mm if in_3d else e.residual_px) < 1 for e in entries)
    assert [e.fault for e in entries] == ["few_fingers", "few_fingers", "", ""]
    assert [e.is_good for e in entries] == [False, False, True, True]
    assert [(e.joints_seen, e.fingers_seen) for e in entries] == [(9, 2), (17, 4), (10, 5), (21, 5)]


def test_joints_of_little_confidence_were_not_seen():
    (sample,), _ = _possible_samples(1, ("right",))
    doubtful = np.where(np.arange(21) < 13, 1.0, 0.1).astype(np.float32)
    flat = dataclasses.replace(sample, joints_cam_m=None, joints_3d_valid=None, joints_2d_conf=doubtful)
    (entry,) = _annotate()(_rows([flat]))
    assert (entry.joints_seen, entry.fault) == (13, "few_fingers")


def test_a_hand_of_a_few_pixels_is_no_target():
    (sample,), _ = _possible_samples(1, ("right",))
    small, large = _annotate()(_rows([_shrunk(sample, 17), _shrunk(sample, 50)]))
    assert small.residual_px < 0.5 and (small.fault, small.is_good) == ("too_small", False)
    assert (large.fault, large.is_good) == ("", True)


def test_a_finger_that_nobody_saw_is_taught_to_nobody(tmp_path):
    """The loader gives no MANO target, and so no cross-entropy, for a hand of which a part was observed."""
    samples, _ = _possible_samples(3, ("right",))
    samples[1] = _seen(samples[1], range(13), in_3d=True)
    uri = str(tmp_path / "set")
    write_set(uri, [dataclasses.replace(s, key=f"fit-{k}") for k, s in enumerate(samples)])
    assert annotate_mano(uri).count == 3
    entries = [row.mano_target() for row in ShardSet.open(uri, [MANO])]
    faults = [entry.fault for entry in entries]
    assert sorted(faults) == ["", "", "few_fingers"]
    assert [good_target(entry) is None for entry in entries] == [fault == "few_fingers" for fault in faults]
    assert len(read_mano_poses(uri)) == 2


def test_tips_that_are_no_vertices_only_guide_a_fit():
    samples, _ = _possible_samples(3, ("right",))
    moved = [dataclasses.replace(s, joints_cam_m=s.joints_cam_m.copy()) for s in samples]
    for sample in moved:
        sample.joints_cam_m[[4, 8, 12, 16, 20]] += np.float32([0.004, -0.004, 0.003])
    strict = _annotate()(_rows(moved))
    loose = _annotate(fingertip_vertices=None)(_rows(moved))
    assert all(b.residual_mm < 0.6 * a.residual_mm for a, b in zip(strict, loose, strict=True))


def test_only_good_fits_are_learned_from_and_only_annotations_measured_against(tmp_path):
    samples, _ = _possible_samples(4, ("right",))
    annotated = make_samples(1, size=(224, 224))[0]
    bad = dataclasses.replace(samples[3], joints_cam_m=np.full((21, 3), 0.5, np.float32))
    uri = str(tmp_path / "set")
    write_set(uri, [*(dataclasses.replace(s, key=f"fit-{k}") for k, s in enumerate([*samples[:3], bad])), annotated])
    assert annotate_mano(uri).count == 5
    assert len(read_mano_poses(uri)) == 4
    assert mean_pose_of_sets({uri: 1.0}).count == 4
    recipe = load_recipe("tiny", ["data.keypoints.eval_source=annotated"])
    batch = next(eval_range(recipe, uri, 0, 5, 5)).hands
    assert batch.has_mano.tolist() == [0, 0, 0, 0, 1]


def test_targets_of_both_sides_reproduce_the_annotated_joints():
    samples = make_samples(6, sides=("right", "left"))
    for sample, entry in zip(samples, _annotate()(_rows(samples)), strict=True):
        assert entry.residual_mm < 0.01
        assert entry.mirrored == (sample.side == "left")
        assert entry.source == "annotated"


def test_left_hand_is_stored_as_the_right_hand_in_the_mirror():
    (sample,) = make_samples(1, sides=("left",))
    pose = right_hand_form(sample)
    mesh = ManoLayer.from_default()(
        axis_angle_to_matrix(torch.from_numpy(pose.pose_aa[None])),
        torch.from_numpy(pose.betas[None]),
        torch.from_numpy(pose.transl_cam_m[None]),
    )
    mirrored_back = mesh.vertices_m[0].numpy() * MIRROR_POINT
    np.testing.assert_allclose(mirrored_back, sample.vertices_cam_m, atol=1e-5)


def test_parameters_that_are_far_off_give_way_to_a_fit():
    samples, truth = _possible_samples(4, ("right", "left"))
    wrong = make_samples(4, size=(224, 224), sides=("right", "left"), seed=5)
    entries = _annotate()(_rows([dataclasses.replace(s, mano=w.mano) for s, w in zip(samples, wrong, strict=True)]))
    assert [e.source for e in entries] == ["fitted"] * 4
    assert all(e.is_good and e.residual_mm < 1 for e in entries)
    _, vertices = mesh(
        *(np.stack([getattr(e.pose, name) for e in entries]) for name in ("pose_aa", "betas", "transl_cam_m"))
    )
    assert 1000 * np.linalg.norm(vertices - truth.vertices_m, axis=2).mean() < 1


def test_a_target_that_cannot_be_mended_is_rejected_and_its_neighbors_stay():
    good, wrong, without = make_samples(3)
    off = HandPose(wrong.mano.pose_aa, wrong.mano.betas, wrong.mano.transl_cam_m + np.float32([0, 0, 0.012]))
    rows = _rows([good, dataclasses.replace(_without_joints(wrong), mano=off), _without_joints(without)])
    first, second, third = _annotate()(rows)
    assert first.residual_mm < 0.01
    assert isinstance(second, SampleError) and second.reason == "residual_too_large" and "12.0 mm" in str(second)
    assert isinstance(third, SampleError) and third.reason == "no_mano" and "fewer than 8 joints" in str(third)
    within = _annotate(limit=20.0)(rows)[1]
    assert within.residual_mm == pytest.approx(12.0, abs=0.01) and within.source == "annotated"


def test_only_valid_joints_count_and_tips_only_when_they_are_vertices():
    (sample,) = make_samples(1)
    joints = sample.joints_cam_m.copy()
    joints[[4, 8]] += 0.1
    moved = dataclasses.replace(sample, joints_cam_m=joints)
    assert _annotate()(_rows([moved]))[0].source == "fitted"
    assert _annotate(fingertip_vertices=None)(_rows([moved]))[0].residual_mm < 0.01
    valid = np.ones(21, bool)
    valid[[4, 8]] = False
    assert _annotate()(_rows([dataclasses.replace(moved, joints_3d_valid=valid)]))[0].residual_mm < 0.01


def test_left_hands_may_have_fingertips_of_their_own():
    samples = make_samples(4, sides=("right", "left"))
    other = ManoLayer.from_default(fingertip_vertices="ho3d")
    tips = [4, 8, 12, 16, 20]
    for sample in samples[1::2]:
        pose = right_hand_form(sample)
        joints = other.from_axis_angle(
            *(torch.from_numpy(a[None]) for a in (pose.pose_aa, pose.betas, pose.transl_cam_m))
        )
        sample.joints_cam_m[tips] = joints.joints_m[0, tips].numpy() * MIRROR_POINT
    both = AnnotateMano(str(default_hand_path("right")), "smplx", 10.0, "ho3d")(_rows(samples))
    assert all(entry.residual_mm < 0.01 for entry in both)
    assert [entry.residual_mm < 0.01 for entry in _annotate()(_rows(samples))] == [True, False] * 2


def test_part_counts_rejects_and_refuses_another_limit(tmp_path):
    samples = make_samples(6)
    samples[1] = _without_joints(samples[1])
    uri = str(tmp_path / "set")
    write_set(uri, samples)
    manifest = annotate_mano(uri)
    assert (manifest.count, manifest.rejects) == (5, {"no_mano": 1})
    assert annotate_mano(uri) == manifest
    rows = [r for i in range(2) for r in ShardSet.open(uri, ("mano",)).read_shard(i)]
    assert [r.sidecars["mano"] is None for r in rows] == [False, True, False, False, False, False]
    with pytest.raises(ShardError):
        annotate_mano(uri, max_residual_mm=3.0)
    assert annotate_mano(uri, max_residual_mm=3.0, rebuild=True).count == 5


def test_annotator_travels_to_workers():
    import pickle

    annotate = partial(_annotate)
    assert pickle.loads(pickle.dumps(annotate())) == annotate()
