"""The crop camera, by projecting points. `test_placement` has the way to the whole image's camera."""

from __future__ import annotations

import torch

from maskhand.hand.assumed_camera import FOCAL, assumed_camera
from maskhand.hand.camera import crop_camera_translation, project_crop


def random_points() -> torch.Tensor:
    return 0.08 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


CAMERA = torch.tensor([[9.0, 0.01, -0.02], [6.0, -0.03, 0.04]], dtype=torch.float64)


def test_translation_is_hamers():
    tx, ty, tz = crop_camera_translation(CAMERA)[0].tolist()
    assert (tx, ty) == (0.01, -0.02)
    assert abs(tz - 2 * 5000 / (256 * 9.0)) < 1e-6


def test_scale_reads_as_half_sides_per_meter():
    """A meter at the hand's own depth spans s / 2 crop sides, whatever the focal length."""
    meter = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]] * 2, dtype=torch.float64)
    for focal in (FOCAL, 3.0, torch.tensor([2.0, 30.0], dtype=torch.float64)):
        crop = project_crop(meter, CAMERA, focal)
        torch.testing.assert_close(crop[:, 1, 0] - crop[:, 0, 0], CAMERA[:, 0] / 2)
        torch.testing.assert_close(crop[:, 0], CAMERA[:, :1] * CAMERA[:, 1:] / 2)


def test_an_assumed_camera_looks_at_the_middle_of_the_pixels():
    """Pixel centers are integers, so the middle of three pixels is 1."""
    assert assumed_camera((640, 480)).tolist() == [[640 * FOCAL, 0, 319.5], [0, 640 * FOCAL, 239.5], [0, 0, 1]]
    assert assumed_camera((3, 1), focal_px=7).tolist() == [[7, 0, 1], [0, 7, 0], [0, 0, 1]]


def test_gradients_reach_the_camera():
    camera = CAMERA.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: project_crop(random_points()[:, :3], c), camera)
