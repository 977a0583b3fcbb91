"""MANO sidecars: canonical form, round trip against the joints, rejects counted by reason."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from hand_sets import make_samples, write_set

from maskhand.annotate.mano_targets import AnnotateMano, annotate_mano, right_hand_form
from maskhand.conventions import MIRROR_POINT
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.sample import HandPose, SampleError
from maskhand.shards.layout import ShardError
from maskhand.shards.reader import ShardSample, ShardSet


def _rows(samples):
    return [ShardSample(s, k, {}) for k, s in enumerate(samples)]


def _annotate(tips="smplx", limit=10.0):
    return AnnotateMano(str(default_hand_path("right")), tips, limit)


def test_targets_of_both_sides_reproduce_the_annotated_joints():
    samples = make_samples(6, sides=("right", "left"))
    for sample, entry in zip(samples, _annotate()(_rows(samples)), strict=True):
        assert entry["residual_mm"] < 0.01
        assert bool(entry["mirrored"]) == (sample.side == "left")
        assert str(entry["source"]) == "annotated"


def test_left_hand_is_stored_as_the_right_hand_in_the_mirror():
    import torch

    (sample,) = make_samples(1, sides=("left",))
    pose = right_hand_form(sample)
    mesh = ManoLayer.from_default()(
        axis_angle_to_matrix(torch.from_numpy(pose.pose_aa[None])),
        torch.from_numpy(pose.betas[None]),
        torch.from_numpy(pose.transl_cam_m[None]),
    )
    mirrored_back = mesh.vertices_m[0].numpy() * MIRROR_POINT
    np.testing.assert_allclose(mirrored_back, sample.vertices_cam_m, atol=1e-5)


def test_a_target_that_does_not_fit_is_rejected_and_its_neighbours_stay():
    good, wrong, without = make_samples(3)
    off = HandPose(wrong.mano.pose_aa, wrong.mano.betas, wrong.mano.transl_cam_m + np.float32([0, 0, 0.012]))
    rows = _rows([good, dataclasses.replace(wrong, mano=off), dataclasses.replace(without, mano=None)])
    first, second, third = _annotate()(rows)
    assert first["residual_mm"] < 0.01
    assert isinstance(second, SampleError) and second.reason == "residual_too_large" and "12.0 mm" in str(second)
    assert isinstance(third, SampleError) and third.reason == "no_mano"
    assert _annotate(limit=20.0)(rows)[1]["residual_mm"] == pytest.approx(12.0, abs=0.01)


def test_only_valid_joints_count_and_tips_only_when_they_are_vertices():
    (sample,) = make_samples(1)
    joints = sample.joints_cam_m.copy()
    joints[[4, 8]] += 0.1
    moved = dataclasses.replace(sample, joints_cam_m=joints)
    assert isinstance(_annotate()(_rows([moved]))[0], SampleError)
    assert _annotate(tips=None)(_rows([moved]))[0]["residual_mm"] < 0.01
    valid = np.ones(21, bool)
    valid[[4, 8]] = False
    assert _annotate()(_rows([dataclasses.replace(moved, joints_3d_valid=valid)]))[0]["residual_mm"] < 0.01


def test_part_counts_rejects_and_refuses_another_limit(tmp_path):
    samples = make_samples(6)
    samples[1] = dataclasses.replace(samples[1], mano=None)
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
