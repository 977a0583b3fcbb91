"""Metrics against a plain per-sample reimplementation of FreiHAND's evaluator with scipy, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from maskhand.evaluation.metrics import (
    SampleErrors,
    area_under_curve,
    f_scores,
    mean_error,
    procrustes_align,
    sample_errors,
)


def plain_align(target, points):
    """FreiHAND utils/eval_util.py align_w_scale."""
    t1, t2 = target.mean(0), points.mean(0)
    m1, m2 = target - t1, points - t2
    s1, s2 = np.linalg.norm(m1) + 1e-8, np.linalg.norm(m2) + 1e-8
    rotation, scale = orthogonal_procrustes(m1 / s1, m2 / s2)
    return (m2 / s2) @ rotation.T * scale * s1 + t1


def plain_align_without_reflection(target, points):
    """HaMeR utils/pose_utils.py compute_similarity_transform."""
    mu1, mu2 = points.mean(0), target.mean(0)
    x1, x2 = (points - mu1).T, (target - mu2).T
    covariance = x1 @ x2.T
    u, _, vt = np.linalg.svd(covariance)
    z = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = vt.T @ z @ u.T
    scale = np.trace(rotation @ covariance) / (x1**2).sum()
    return scale * points @ rotation.T + (mu2 - scale * rotation @ mu1)


def plain_f(target, points, limit):
    table = cdist(target, points)
    precision, recall = np.mean(table.min(1) < limit), np.mean(table.min(0) < limit)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def plain_auc(errors):
    thresholds = np.linspace(0, 0.05, 100)
    norm = np.trapezoid(np.ones_like(thresholds), thresholds)
    curves = [[np.mean(errors[:, p] <= t) for t in thresholds] for p in range(errors.shape[1])]
    return float(np.mean([np.trapezoid(curve, thresholds) / norm for curve in curves]))


@pytest.fixture(scope="module")
def hands():
    """Predictions that are moved, scaled, noisy versions of the truth; every fourth one is a mirror image."""
    rng = np.random.default_rng(0)
    truth_j, truth_v = rng.normal(0, 0.05, (12, 21, 3)), rng.normal(0, 0.05, (12, 778, 3))
    turn = Rotation.random(12, random_state=1).as_matrix()
    turn[::4] *= [[-1.0, 1, 1]]
    noise = rng.uniform(0, 0.02, (12, 1, 1))
    scale, shift = rng.uniform(0.7, 1.4, (12, 1, 1)), rng.normal(0, 0.02, (12, 1, 3))

    def disturb(points):
        return scale * (points + noise * rng.normal(size=points.shape)) @ turn + shift

    return disturb(truth_j), truth_j, disturb(truth_v), truth_v


def errors_of(hands, **options) -> SampleErrors:
    return sample_errors(*(torch.tensor(x) for x in hands), **options)


def test_alignment_equals_scipys_sample_by_sample(hands):
    for points, target in (hands[:2], hands[2:]):
        aligned = procrustes_align(torch.tensor(points), torch.tensor(target)).numpy()
        forbidden = procrustes_align(torch.tensor(points), torch.tensor(target), reflection=False).numpy()
        for k in range(len(points)):
            np.testing.assert_allclose(aligned[k], plain_align(target[k], points[k]), atol=1e-12)
            # HaMeR adds no epsilon to the norms; the two agree to that epsilon.
            np.testing.assert_allclose(forbidden[k], plain_align_without_reflection(target[k], points[k]), atol=1e-7)


def test_a_mirrored_hand_scores_zero_only_where_reflection_is_allowed():
    truth = torch.randn(3, 21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mirrored = 0.5 * truth * torch.tensor([-1.0, 1, 1]) + 1
    assert (procrustes_align(mirrored, truth) - truth).norm(dim=-1).max() < 1e-6
    assert (procrustes_align(mirrored, truth, reflection=False) - truth).norm(dim=-1).mean() > 0.1


def test_every_number_equals_the_plain_evaluator(hands):
    joints, true_joints, vertices, true_vertices = hands
    summary = errors_of(hands).summary()
    aligned_j = np.stack([plain_align(t, p) for t, p in zip(true_joints, joints, strict=True)])
    aligned_v = np.stack([plain_align(t, p) for t, p in zip(true_vertices, vertices, strict=True)])
    expected = {}
    for prefix, j, v in (("", joints, vertices), ("pa_", aligned_j, aligned_v)):
        joint_error = np.linalg.norm(j - true_joints, axis=-1)
        vertex_error = np.linalg.norm(v - true_vertices, axis=-1)
        expected[f"{prefix}mpjpe_mm"] = 1e3 * joint_error.mean(0).mean()
        expected[f"{prefix}mpvpe_mm"] = 1e3 * vertex_error.mean(0).mean()
        expected[f"{prefix}auc_joints"] = plain_auc(joint_error)
        expected[f"{prefix}auc_vertices"] = plain_auc(vertex_error)
        for name, limit in (("f5", 0.005), ("f15", 0.015)):
            expected[prefix + name] = np.mean([plain_f(t, p, limit) for t, p in zip(true_vertices, v, strict=True)])
    assert summary == pytest.approx(expected, abs=1e-9)
    assert 0 < summary["pa_f5"] < summary["pa_f15"] < 1 and 0 < summary["auc_joints"] < summary["pa_auc_joints"] < 1


def test_per_sample_numbers_average_to_the_summary(hands):
    errors = errors_of(hands)
    summary = errors.summary()
    for name, values in errors.per_sample().items():
        assert values.shape == (12,)
        assert float(values.mean()) == pytest.approx(summary[name])
    halves = [errors_of([x[part] for x in hands]) for part in (slice(0, 7), slice(7, None))]
    assert SampleErrors.concatenate(halves).summary() == pytest.approx(summary)


def test_thresholds_are_strict_for_f_and_inclusive_for_auc():
    truth = torch.zeros(1, 1, 3, dtype=torch.float64)
    at_five_mm = truth + torch.tensor([0.005, 0, 0], dtype=torch.float64)
    assert f_scores(at_five_mm, truth).tolist() == [[0.0, 1.0]]
    # An error of exactly 50 mm is correct at the last threshold only: half of the last of 99 steps.
    assert float(area_under_curve(torch.tensor([[0.05]], dtype=torch.float64))) == pytest.approx(0.5 / 99)
    assert float(area_under_curve(torch.zeros(2, 3, dtype=torch.float64))) == pytest.approx(1.0)


def test_f_score_counts_both_directions():
    """Four of five predictions lie on the one target: precision 0.8, recall 1."""
    points = torch.zeros(1, 5, 3, dtype=torch.float64)
    points[0, 4, 0] = 1.0
    score = f_scores(points, torch.zeros(1, 1, 3, dtype=torch.float64))
    assert score.tolist() == [pytest.approx([2 * 0.8 / 1.8] * 2)]
    assert f_scores(points + 10, points).tolist() == [[0.0, 0.0]]


def test_unannotated_joints_neither_count_nor_steer_the_alignment(hands):
    joints, true_joints, vertices, true_vertices = (torch.tensor(x) for x in hands)
    valid = torch.ones(12, 21, dtype=torch.bool)
    valid[:, 20] = False
    valid[:5, 3] = False
    broken = true_joints.clone()
    broken[~valid] = 9.0
    errors = sample_errors(joints, broken, vertices, true_vertices, joints_valid=valid)
    assert errors.joint_pa_m.isnan().equal(~valid)
    kept = valid[7]
    alone = procrustes_align(joints[7:8, kept], true_joints[7:8, kept])
    torch.testing.assert_close(errors.joint_pa_m[7, kept], (alone - true_joints[7:8, kept]).norm(dim=-1)[0])
    # Mean per joint, then over the joints that exist: joint 3 weighs as much as the others.
    per_joint = torch.stack([errors.joint_m[valid[:, j], j].mean() for j in range(20)])
    assert float(mean_error(errors.joint_m)) == pytest.approx(float(per_joint.mean()))
    assert np.isfinite(list(errors.summary().values())).all()


def test_samples_without_a_mesh_leave_the_vertex_numbers_to_the_others(hands):
    has_mesh = torch.arange(12) % 2 == 0
    errors = errors_of(hands, vertices_valid=has_mesh)
    alone = errors_of([x[::2] for x in hands])
    for name in ("pa_mpvpe_mm", "pa_f5", "auc_vertices"):
        assert errors.summary()[name] == pytest.approx(alone.summary()[name])
    assert errors.per_sample()["pa_f5"].isnan().equal(~has_mesh)
