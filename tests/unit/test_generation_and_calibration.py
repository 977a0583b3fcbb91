"""Metrics of generated hands and of confidences: closed forms, brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn.metrics import roc_auc_score

from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.metrics.calibration import auroc_large_errors, reliability, sparsification
from maskhand.metrics.generation import average_pairwise_distance, chamfer, hausdorff, self_intersection


def test_average_pairwise_distance() -> None:
    apart = np.zeros((2, 21, 3))
    apart[1, :, 0] = 0.02
    assert average_pairwise_distance(apart) == pytest.approx(0.02)
    rng = np.random.default_rng(0)
    hands = rng.normal(size=(7, 5, 3))
    pairs = [np.linalg.norm(hands[i] - hands[j], axis=1).mean() for i in range(7) for j in range(i)]
    assert average_pairwise_distance(hands) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="at least 2 hands, got 1"):
        average_pairwise_distance(hands[:1])


def test_chamfer_and_hausdorff_are_those_of_a_table() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 40, 3)), rng.normal(size=(3, 30, 3))
    for k in range(3):
        table = cdist(a[k], b[k])
        expected = (table.min(0) ** 2).mean() + (table.min(1) ** 2).mean()
        assert chamfer(a, b)[k] == pytest.approx(expected) == pytest.approx(chamfer(b, a)[k])
        assert hausdorff(a, b)[k] == pytest.approx(
            max(directed_hausdorff(a[k], b[k])[0], directed_hausdorff(b[k], a[k])[0])
        )
    shifted = a + np.array([0, 0, 1e-3])
    np.testing.assert_allclose(chamfer(a, shifted), 2e-6)
    np.testing.assert_allclose(hausdorff(a, a), 0)


def test_self_intersection_of_two_triangles() -> None:
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    flat = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    through = np.array([[0.2, 0.2, -1], [0.2, 0.2, 1], [0.2, 5, 1]], float)
    beside, above = through + np.array([2, 0, 0]), through + np.array([0, 0, 1.5])
    meshes = np.stack([np.concatenate([flat, other]) for other in (through, beside, above)])
    assert self_intersection(meshes, faces).tolist() == [1.0, 0.0, 0.0]
    neighbors = np.array([[0, 1, 2], [0, 4, 5]])
    assert self_intersection(meshes[:1], neighbors).tolist() == [0.0]


def test_self_intersection_of_spheres_and_of_the_hand() -> None:
    ball = trimesh.creation.icosphere(2, radius=1.0)
    count = len(ball.vertices)
    faces = np.concatenate([ball.faces, ball.faces + count])
    meshes = np.stack(
        [np.concatenate([ball.vertices, ball.vertices + np.array([x, 0.013, 0.007])]) for x in (1.0, 1.9, 2.1)]
    )
    near, grazing, apart = self_intersection(meshes, faces)
    assert near > grazing > 0 == apart
    # Faces that cross the other ball have corners on both sides of its surface, or just inside its facets.
    expected = _faces_on_both_sides(meshes[0], ball.faces, count)
    assert near == pytest.approx(expected, abs=0.03)
    hand = load_hand_model(default_hand_path("right"))
    assert self_intersection(hand.v_template_m[None], hand.faces)[0] < 0.02


def _faces_on_both_sides(vertices, faces, count: int) -> float:
    first, second = vertices[:count], vertices[count:]
    inside = [np.linalg.norm(a - b.mean(0), axis=1) < 0.99 for a, b in ((first, second), (second, first))]
    mixed = [i[faces].any(1) & ~i[faces].all(1) for i in inside]
    return float(np.concatenate(mixed).mean())


def test_reliability_of_an_honest_and_of_a_boasting_confidence() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    honest = reliability(confidence, rng.random(200_000) < confidence)
    assert honest.expected_calibration_error < 0.01 and honest.count.sum() == 200_000
    np.testing.assert_allclose(honest.confidence, np.arange(10) / 10 + 0.05, atol=0.005)
    boasting = reliability(np.full(100, 1.0), np.arange(100) < 60)
    assert boasting.expected_calibration_error == pytest.approx(0.4)
    assert boasting.count.tolist() == [0] * 9 + [100] and np.isnan(boasting.correct[0])


def test_sparsification() -> None:
    error = np.array([4.0, 1, 3, 2])
    perfect, useless, wrong = (sparsification(c, error) for c in (-error, np.ones(4), error))
    assert perfect.by_confidence.tolist() == perfect.by_error.tolist() == [2.5, 2.0, 1.5, 1.0]
    assert perfect.excess == 0 and perfect.area == 1.75 and perfect.left_out.tolist() == [0, 0.25, 0.5, 0.75]
    assert useless.by_confidence.tolist() == [2.5] * 4
    assert wrong.excess > useless.excess > 0
    with pytest.raises(ValueError, match="at least one sample"):
        sparsification(error[:0], error[:0])


def test_auroc_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    error = rng.exponential(size=500)
    confidence = np.round(-error + rng.normal(size=500), 1)  # with ties
    assert auroc_large_errors(confidence, error, 1.0) == pytest.approx(roc_auc_score(error > 1.0, -confidence))
    assert auroc_large_errors(-error, error, 1.0) == 1.0
    with pytest.warns(UserWarning, match="no error is above 100"):
        assert np.isnan(auroc_large_errors(confidence, error, 100.0))
