"""The crop affine: where the square's center and corners land, turned and mirrored; boxes."""

from __future__ import annotations

import numpy as np
import pytest

from maskhand.geometry2d import apply_affine, box_iou, compose, crop_affine, mirror_affine, tight_box

CENTERS, SIDES = np.array([[70.0, 40.0], [10.0, 90.0]]), np.array([64.0, 100.0])


@pytest.mark.parametrize(("center_at", "expected"), [(None, 16), (15.5, 15.5)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_center_lands_where_it_is_asked_for(center_at: float | None, expected: float, mirrored: bool) -> None:
    affine = crop_affine(CENTERS, SIDES, np.array([0.3, -2.0]), 32, center_at=center_at, mirrored=mirrored)
    np.testing.assert_allclose(apply_affine(affine, CENTERS[:, None]), np.full((2, 1, 2), expected), atol=1e-12)


def test_a_positive_rotation_turns_x_towards_y_and_a_mirrored_crop_reverses_x() -> None:
    to_the_right = (CENTERS + np.stack([SIDES / 2, np.zeros(2)], axis=1))[:, None]
    quarter = apply_affine(crop_affine(CENTERS, SIDES, np.full(2, np.pi / 2), 32), to_the_right)
    np.testing.assert_allclose(quarter, np.tile([16, 32], (2, 1, 1)), atol=1e-12)
    reversed_x = apply_affine(crop_affine(CENTERS, SIDES, np.zeros(2), 32, mirrored=True), to_the_right)
    np.testing.assert_allclose(reversed_x, np.tile([0, 16], (2, 1, 1)), atol=1e-12)


def test_compose_applies_the_second_first() -> None:
    mirror, crop = mirror_affine(np.array([100, 50])), crop_affine(CENTERS, SIDES, np.array([0.1, 1.0]), 32)
    expected = apply_affine(crop, apply_affine(mirror, CENTERS[:, None]))
    np.testing.assert_allclose(apply_affine(compose(crop, mirror), CENTERS[:, None]), expected)


def test_boxes() -> None:
    assert tight_box(np.array([[3, 9], [1, 4], [2, 7]])).tolist() == [1, 4, 3, 9]
    a, b = np.array([0, 0, 2, 2]), np.array([1, 0, 3, 2])
    assert box_iou(a, b) == pytest.approx(1 / 3) and box_iou(a, b + 10) == 0 and box_iou(a * 0, a * 0) == 0
