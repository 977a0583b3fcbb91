"""Metrics against closed forms, twins of the official evaluators, and properties that must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from maskhand.metrics.accumulate import Means, PointErrors
from maskhand.metrics.alignment import distances, procrustes_align, root_relative, scale_translation_align
from maskhand.metrics.fscore import counts_within, f_scores
from maskhand.metrics.pck import CorrectKeypoints
from maskhand.metrics.samples import SampleErrors, sample_errors
from maskhand.metrics.titles import METRICS
from support import official_twins as twins

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module")
def hands():
    """Predictions that are moved, scaled, noisy versions of the truth; every fourth one is a mirror image."""
    rng = np.random.default_rng(0)
    truth_j, truth_v = rng.normal(0, 0.05, (12, 21, 3)), rng.normal(0, 0.05, (12, 200, 3))
    turn = Rotation.random(12, random_state=1).as_matrix()
    turn[::4] *= [[-1.0, 1, 1]]
    noise = rng.uniform(0, 0.02, (12, 1, 1))
    scale, shift = rng.uniform(0.7, 1.4, (12, 1, 1)), rng.normal(0, 0.02, (12, 1, 3))

    def disturb(points):
        return scale * (points + noise * rng.normal(size=points.shape)) @ turn + shift

    return disturb(truth_j), truth_j, disturb(truth_v), truth_v


def test_alignment_equals_scipys_sample_by_sample(hands) -> None:
    for points, target in (hands[:2], hands[2:]):
        aligned = procrustes_align(points, target)
        forbidden = procrustes_align(points, target, reflection=False)
        for k in range(len(points)):
            np.testing.assert_allclose(aligned[k], twins.align(target[k], points[k]), atol=1e-14)
            # HaMeR adds no epsilon to the norms; the two agree to that epsilon.
            np.testing.assert_allclose(forbidden[k], twins.align_without_mirror(target[k], points[k]), atol=1e-7)


@pytest.mark.parametrize("flat", [(1, 1, 0), (1, 0, 0), (0, 0, 0)], ids=["plane", "line", "point"])
@pytest.mark.parametrize("which", ["prediction", "truth", "both"])
def test_degenerate_hands_are_aligned_as_scipy_does(hands, flat, which: str) -> None:
    points = hands[0] * flat if which != "truth" else hands[0]
    target = hands[1] * flat if which != "prediction" else hands[1]
    found = distances(procrustes_align(points, target), target)
    expected = [np.linalg.norm(twins.align(t, p) - t, axis=1) for p, t in zip(points, target, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.isfinite(procrustes_align(points, target, reflection=False)).all()


def test_a_mirrored_hand_scores_zero_only_where_reflection_is_allowed(hands) -> None:
    truth = hands[1]
    mirrored = 0.5 * truth * (-1, 1, 1) + 1
    assert distances(procrustes_align(mirrored, truth), truth).max() < 1e-7
    assert distances(procrustes_align(mirrored, truth, reflection=False), truth).mean() > 0.02


def test_scale_and_translation_alignment(hands) -> None:
    points, target = hands[0].copy(), hands[1]
    points[3, 4] = points[3, 0]  # a bone without length
    found = scale_translation_align(points, target)
    for k in range(len(points)):
        np.testing.assert_allclose(found[k], twins.align_scale_translation(target[k], points[k]), rtol=1e-12)
    exact = scale_translation_align(2.5 * target + 1, target)
    np.testing.assert_allclose(exact, target, atol=1e-12)
    assert np.array_equal(root_relative(points, 3)[:, 3], np.zeros((12, 3)))


def test_every_number_equals_the_official_evaluator(hands) -> None:
    joints, true_joints, vertices, true_vertices = hands
    expected = twins.mesh_benchmark(true_joints, true_vertices, joints, vertices)
    names = {
        "pa_mpjpe_mm": "pa_mpjpe_mm",
        "mpvpe_mm": "mpvpe_mm",
        "f5": "f_5mm",
        "pa_f15": "f_15mm_aligned",
        "auc_joints": "auc_joints",
        "pa_auc_vertices": "auc_vertices_aligned",
    }
    summary = sample_errors(*(torch.tensor(x) for x in hands)).summary()
    assert {k: summary[k] for k in names} == pytest.approx({k: expected[v] for k, v in names.items()}, rel=1e-9)


def test_per_sample_numbers_average_to_the_summary(hands) -> None:
    errors = sample_errors(*hands)
    summary = errors.summary()
    for name, values in errors.per_sample().items():
        assert values.shape == (12,)
        assert values.mean() == pytest.approx(summary[name])
    halves = [sample_errors(*(x[part] for x in hands)) for part in (slice(0, 7), slice(7, None))]
    assert SampleErrors.concatenate(halves).summary() == summary and len(errors) == 12


def test_thresholds_are_strict_for_f_and_inclusive_for_auc_and_pck() -> None:
    truth = np.zeros((1, 1, 3))
    at_five_mm = truth + np.array([0.005, 0, 0])
    assert f_scores(at_five_mm, truth).tolist() == [[0.0, 1.0]]
    assert f_scores(np.nextafter(at_five_mm, 0), truth).tolist() == [[1.0, 1.0]]
    # An error of exactly 50 mm is correct at the last threshold only: half of the last of 99 steps.
    assert PointErrors.of(np.array([[0.05]])).pck_auc == pytest.approx(0.5 / 99)
    assert PointErrors.of(np.array([[np.nextafter(0.05, 1)]])).pck_auc == 0
    assert PointErrors.of(np.zeros((2, 3))).pck_auc == pytest.approx(1.0)
    shifted = np.array([[[10.0, 0], [10.1, 0]]])
    found = CorrectKeypoints.of(shifted, np.zeros((1, 2, 2)), np.ones((1, 2)), np.array([100.0]), (0.1,))
    assert found.pck_by_joint.tolist() == [[1.0, 0.0]] and found.pck == (0.5,)
    assert found.error_px.values.tolist() == [10.0, 10.1]


def test_f_score_counts_both_directions() -> None:
    """Four of five predictions lie on the one target: precision 0.8, recall 1."""
    points = np.zeros((1, 5, 3))
    points[0, 4, 0] = 1.0
    assert f_scores(points, np.zeros((1, 1, 3))).tolist() == [pytest.approx([2 * 0.8 / 1.8] * 2)]
    assert f_scores(points + 10, points).tolist() == [[0.0, 0.0]]
    assert f_scores(points[:, :0], points).tolist() == [[0.0, 0.0]]
    assert f_scores(points[:0], points[:0]).shape == (0, 2)


@pytest.mark.parametrize("spread_m", [1e-4, 0.05, 3.0, 300.0])
@pytest.mark.parametrize("error_m", [0.0, 0.004, 0.012, 1.0])
def test_f_scores_are_exact_at_any_size(spread_m: float, error_m: float) -> None:
    """Float32 decides nothing that it cannot: distances are spaced by less than its precision around the thresholds."""
    rng = np.random.default_rng(0)
    target = rng.normal(0, spread_m, (3, 300, 3)) + 5
    points = target[:, :250] + error_m * rng.normal(size=(3, 250, 3))
    aside = rng.normal(size=(3, 100, 3))
    aside *= rng.choice([0.005, 0.015], (3, 100, 1)) / np.linalg.norm(aside, axis=-1, keepdims=True)
    points[:, :100] = target[:, :100] + aside * (1 + rng.normal(size=(3, 100, 1)) * 1e-7)
    found = f_scores(points, target)
    for k in range(3):
        for t, limit in enumerate((0.005, 0.015)):
            assert found[k, t] == twins.f_score(target[k], points[k], limit)


def test_unannotated_joints_neither_count_nor_steer_the_alignment(hands) -> None:
    joints, true_joints, vertices, true_vertices = hands
    valid = np.ones((12, 21), bool)
    valid[:, 20] = False
    valid[:5, 3] = False
    broken = true_joints.copy()
    broken[~valid] = np.nan
    errors = sample_errors(joints, broken, vertices, true_vertices, joints_valid=valid)
    assert np.array_equal(np.isnan(errors.joint_pa_m), ~valid)
    kept = valid[2]
    alone = twins.align(true_joints[2, kept], joints[2, kept])
    np.testing.assert_allclose(errors.joint_pa_m[2, kept], np.linalg.norm(alone - true_joints[2, kept], axis=1))
    # Mean per joint, then over the joints that exist: joint 3 weighs as much as the others.
    collected = twins.Collected(21)
    for truth, guess, seen in zip(true_joints, joints, valid, strict=True):
        collected.feed(truth, guess, seen)
    found = PointErrors.of(errors.joint_m)
    assert found.mean == pytest.approx(collected.mean()) and found.pck_auc == pytest.approx(collected.area(0.05))
    assert found.count.tolist() == valid.sum(0).tolist() and np.isnan(found.means[20])
    assert np.isfinite(list(errors.summary().values())).all()


def test_too_few_joints_have_no_error_instead_of_none(hands) -> None:
    """A wrist is at the wrist, and two joints are fitted exactly, whatever was predicted."""
    valid = np.arange(21) < np.array([0, 1, 2, 3, 4, 21] * 2)[:, None]
    errors = sample_errors(*hands, joints_valid=valid)
    count = valid.sum(1)
    assert np.array_equal(~np.isnan(errors.joint_m), valid & (count > 1)[:, None])
    assert np.array_equal(~np.isnan(errors.joint_pa_m), valid & (count > 3)[:, None])
    apart = np.zeros((12, 21), bool)
    apart[:, [0, 5]] = True
    assert np.array_equal(~np.isnan(sample_errors(*hands, joints_valid=apart).joint_m), apart)
    rarely = sample_errors(*hands, joints_valid=valid & (count < 4)[:, None]).summary()
    assert np.isnan([rarely["pa_mpjpe_mm"], rarely["pa_auc_joints"]]).all() and rarely["mpjpe_mm"] > 0


def test_samples_without_a_mesh_leave_the_vertex_numbers_to_the_others(hands) -> None:
    has_mesh = np.arange(12) % 2 == 0
    errors = sample_errors(*hands, vertices_valid=has_mesh)
    alone = sample_errors(*(x[::2] for x in hands))
    for name in ("pa_mpvpe_mm", "pa_f5", "auc_vertices"):
        assert errors.summary()[name] == pytest.approx(alone.summary()[name])
    assert np.array_equal(np.isnan(errors.per_sample()["pa_f5"]), ~has_mesh)


def test_one_wrong_joint() -> None:
    """One joint of 21 off by 42 mm in half of the samples: 1 mm on average."""
    errors = np.zeros((10, 21))
    errors[::2, 7] = 0.042
    assert 1e3 * PointErrors.of(errors).mean == pytest.approx(1.0)


@quick
@given(seeds, st.floats(0.2, 5), st.booleans())
def test_a_similarity_of_the_prediction_changes_no_aligned_error(seed: int, scale: float, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(3, 21, 3))
    points = target + rng.normal(size=target.shape)
    turn = Rotation.random(random_state=seed).as_matrix() * ((-1, 1, 1) if mirrored else (1, 1, 1))
    moved = scale * points @ turn + rng.normal(size=3)
    before, after = (distances(procrustes_align(x, target), target) for x in (points, moved))
    np.testing.assert_allclose(before, after, atol=1e-6)
    if not mirrored:
        before, after = (distances(procrustes_align(x, target, reflection=False), target) for x in (points, moved))
        np.testing.assert_allclose(before, after, atol=1e-6)
    # both moved alike: nothing but lengths changes
    before, after = (distances(a, b) for a, b in ((points, target), (points @ turn, target @ turn)))
    np.testing.assert_allclose(before, after, rtol=1e-9)


@quick
@given(seeds)
def test_an_alignment_is_never_worse_than_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(4, 21, 3))
    points = target + rng.normal(size=target.shape)

    def squares(x):
        return (distances(x, target) ** 2).sum(1)

    allowed, forbidden = procrustes_align(points, target), procrustes_align(points, target, reflection=False)
    assert (squares(allowed) <= squares(forbidden) + 1e-6).all()
    assert (squares(forbidden) <= squares(points) + 1e-6).all()


@quick
@given(seeds, st.floats(1e-4, 1e-2), st.floats(1.0, 3.0))
def test_counts_grow_with_the_threshold_and_are_those_of_a_table(seed: int, limit: float, factor: float) -> None:
    rng = np.random.default_rng(seed)
    points, target = rng.normal(0, 0.01, (2, 40, 3)), rng.normal(0, 0.01, (2, 30, 3))
    matched, found = counts_within(points, target, (limit, factor * limit))
    assert (np.diff(matched) >= 0).all() and (np.diff(found) >= 0).all()
    table = np.linalg.norm(points[:, :, None] - target[:, None], axis=-1)
    for t, threshold in enumerate((limit, factor * limit)):
        assert np.array_equal(matched[:, t], (table.min(2) < threshold).sum(1))
        assert np.array_equal(found[:, t], (table.min(1) < threshold).sum(1))
    np.testing.assert_array_equal(f_scores(points, target), f_scores(target, points))


@quick
@given(seeds, st.integers(1, 39), st.floats(1e-12, 1e4))
def test_order_and_split_of_samples_change_not_one_bit(seed: int, cut: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    errors = np.abs(rng.normal(0, size, (40, 7)))
    errors[rng.random(errors.shape) < 0.2] = np.nan
    whole = PointErrors.of(errors, limit=size)
    shuffled = errors[rng.permutation(40)]
    split = PointErrors.of(shuffled[:cut], limit=size) + PointErrors.of(shuffled[cut:], limit=size)
    np.testing.assert_array_equal(whole.histogram, split.histogram)
    np.testing.assert_array_equal(whole.pck_auc_by_point, split.pck_auc_by_point)
    if size > 1e-6:  # below, the last bits depend on the order of additions
        np.testing.assert_array_equal(whole.means, split.means)
    np.testing.assert_allclose(whole.means, np.nanmean(errors, 0), rtol=1e-12)


@quick
@given(seeds)
def test_pck_grows_with_the_threshold_and_falls_with_the_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, seen = rng.uniform(0, 100, (20, 21, 2)), (rng.random((20, 21)) < 0.7).astype(float)
    offset, size = rng.normal(0, 5, target.shape), rng.uniform(50, 90, 20)
    near = CorrectKeypoints.of(target + offset, target, seen, size)
    far = CorrectKeypoints.of(target + 2 * offset, target, seen, size)
    assert list(near.pck) == sorted(near.pck) and all(a >= b for a, b in zip(near.pck, far.pck, strict=True))
    parts = [CorrectKeypoints.of((target + offset)[k::3], target[k::3], seen[k::3], size[k::3]) for k in range(3)]
    assert (parts[0] + parts[1] + parts[2]).pck == near.pck
    expected = [twins.pck(target + offset, target, seen, size, t) for t in (0.05, 0.10, 0.15)]
    assert near.pck == pytest.approx(expected)


def test_nothing_annotated_is_nan_without_a_stray_warning() -> None:
    with np.errstate(all="raise"):
        empty = PointErrors.of(np.full((3, 21), np.nan))
        assert np.isnan([empty.mean, empty.pck_auc, Means.of(np.empty((0, 4))).mean]).all()


def test_a_metric_is_shown_in_the_unit_of_its_name_and_errors_are_better_small() -> None:
    for name, metric in METRICS.items():
        unit = name.rpartition("_")[2] if name.endswith(("_mm", "_px")) else ""
        assert (metric.unit, metric.larger_is_better) == (unit, not unit), name
    shown = METRICS["pa_mpjpe_mm"], METRICS["pa_f5"]
    assert [metric.column for metric in shown] == ["PA-MPJPE mm", "F@5"]
    assert [metric.cell(value) for metric in shown for value in (9.9294, float("nan"))] == ["9.93", "–", "9.929", "–"]
