"""The crop camera and its way to the full picture, by projecting points both ways."""

from __future__ import annotations

import pytest
import torch

from maskhand.hand.camera import (
    FOCAL,
    assumed_camera,
    camera_on_keypoints,
    crop_camera_to_full,
    crop_camera_translation,
    project_crop,
)


def random_points() -> torch.Tensor:
    return 0.08 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CAMERA = torch.tensor([[9.0, 0.01, -0.02], [6.0, -0.03, 0.04]], dtype=torch.float64)


def project_full(points_m, translation_m, focal_px, principal_px):
    moved = points_m + translation_m[:, None]
    return focal_px[:, None, None] * moved[..., :2] / moved[..., 2:] + principal_px[:, None]


def test_translation_is_hamers():
    tx, ty, tz = crop_camera_translation(CAMERA)[0].tolist()
    assert (tx, ty) == (0.01, -0.02)
    assert abs(tz - 2 * 5000 / (256 * 9.0)) < 1e-6


def test_scale_reads_as_half_sides_per_metre():
    """A metre at the hand's own depth spans s / 2 crop sides, whatever the focal length."""
    metre = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]] * 2, dtype=torch.float64)
    for focal in (FOCAL, 3.0, torch.tensor([2.0, 30.0], dtype=torch.float64)):
        crop = project_crop(metre, CAMERA, focal)
        torch.testing.assert_close(crop[:, 1, 0] - crop[:, 0, 0], CAMERA[:, 0] / 2)
        torch.testing.assert_close(crop[:, 0], CAMERA[:, :1] * CAMERA[:, 1:] / 2)


def crop_affine(centre_px: torch.Tensor, side_px: torch.Tensor, crop_px: int) -> torch.Tensor:
    zoom = crop_px / side_px
    linear = zoom[:, None, None] * torch.eye(2, dtype=torch.float64)
    return torch.cat([linear, (crop_px / 2 - zoom[:, None] * centre_px)[..., None]], dim=2)


def test_keypoints_give_the_camera_back() -> None:
    """Exact keypoints: the camera that made them, whatever the first guess, also with joints that are not seen."""
    generator = torch.Generator().manual_seed(3)
    joints = 0.05 * torch.randn(4, 21, 3, generator=generator, dtype=torch.float64)
    true = torch.tensor([[8.0, 0.01, -0.02], [12.0, 0, 0], [5.0, -0.05, 0.03], [20.0, 0.0, 0.02]], dtype=torch.float64)
    seen = torch.ones(4, 21, 1, dtype=torch.float64)
    seen[2, ::2] = 0
    keypoints = torch.cat([project_crop(joints, true), seen], dim=-1)
    keypoints[2, ::2, :2] = 7.0
    guess = torch.tensor([10.0, 0.1, 0.1], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(camera_on_keypoints(guess, joints, keypoints), true, rtol=1e-6, atol=1e-7)

    keypoints[1, 5:, 2] = 0
    keypoints[3] = 0
    kept = camera_on_keypoints(guess, joints, keypoints)
    assert kept[1].tolist() == kept[3].tolist() == guess[0].tolist()


def test_a_wrong_pose_does_not_shrink_the_hand() -> None:
    generator = torch.Generator().manual_seed(5)
    joints = 0.05 * torch.randn(200, 21, 3, generator=generator)
    true = torch.tensor([12.0, 0.0, 0.0]).expand(200, 3)
    keypoints = torch.cat([project_crop(joints, true), torch.ones(200, 21, 1)], dim=-1)
    wrong = joints[torch.randperm(200, generator=generator)]  # another hand: a regression would give a scale near zero
    assert camera_on_keypoints(true, wrong, keypoints)[:, 0].median() == pytest.approx(12.0, rel=0.05)


def test_full_camera_projects_onto_the_crop():
    crop_px, side_px = 128, torch.tensor([200.0, 90.0], dtype=torch.float64)
    centre_px = torch.tensor([[320.0, 240.0], [100.0, 300.0]], dtype=torch.float64)
    affine = crop_affine(centre_px, side_px, crop_px)

    # A crop in the middle of its picture under the crop camera's own focal length: the same camera.
    focal_px = FOCAL * side_px
    translation = crop_camera_to_full(CAMERA, affine, crop_px, focal_px, centre_px)
    torch.testing.assert_close(translation, crop_camera_translation(CAMERA), atol=1e-6, rtol=0)
    points = random_points()
    in_picture = project_full(points, translation, focal_px, centre_px)
    in_crop = (in_picture - centre_px[:, None]) / side_px[:, None, None]
    torch.testing.assert_close(in_crop, project_crop(points, CAMERA), atol=1e-6, rtol=0)

    # Anywhere else and with any focal length: the hand's origin stays where it was, at the same size.
    principal = torch.tensor([[310.0, 250.0], [400.0, 200.0]], dtype=torch.float64)
    origin_and_step = torch.tensor([[[0.0, 0, 0], [0, 0.01, 0]]] * 2, dtype=torch.float64)
    for focal in (400.0, 4000.0):
        focal_px = torch.full((2,), focal, dtype=torch.float64)
        translation = crop_camera_to_full(CAMERA, affine, crop_px, focal_px, principal)
        in_picture = project_full(origin_and_step, translation, focal_px, principal)
        in_crop = (in_picture - centre_px[:, None]) / side_px[:, None, None]
        torch.testing.assert_close(in_crop, project_crop(origin_and_step, CAMERA), atol=1e-6, rtol=0)
    # Depth is proportional to the focal length.
    torch.testing.assert_close(
        translation[:, 2],
        10 * crop_camera_to_full(CAMERA, affine, crop_px, torch.full((2,), 400.0), principal)[:, 2],
    )


def test_an_assumed_camera_looks_at_the_middle_of_the_pixels():
    """Pixel centres are integers, so the middle of three pixels is 1."""
    assert assumed_camera((640, 480)).tolist() == [[640 * FOCAL, 0, 319.5], [0, 640 * FOCAL, 239.5], [0, 0, 1]]
    assert assumed_camera((3, 1), focal_px=7).tolist() == [[7, 0, 1], [0, 7, 0], [0, 0, 1]]


def test_gradients_reach_the_camera():
    camera = CAMERA.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: project_crop(random_points()[:, :3], c), camera)
