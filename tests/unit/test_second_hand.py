"""The second hand of rendered images: a left hand that does not enter the first one; the order of two layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from maskhand.synth.freihand_layout import FIELDS, SynthError, write_freihand_synth
from maskhand.synth.look import sample_arm
from maskhand.synth.renderer import Layer, composite
from maskhand.synth.scene import HandLabels, Studio, open_studio, random_streams, render_foreground, sample_labels
from maskhand.synth.second_hand import CONTACT_M, FARTHEST_M, STEP_M, second_hand
from maskhand.synth.surface import ArmMesh

COUNTS = {"train": 4, "evaluation": 2, "mocap": 10, "seed": 3, "workers": 1}


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio()


def pair(studio: Studio, index: int) -> tuple[HandLabels, ArmMesh]:
    first_rng, second_rng = random_streams(0, "training", index, 2)
    labels, arm = sample_labels(studio, first_rng), sample_arm(second_rng)[0]
    return labels, second_hand(
        studio.layer, studio.surface, labels.pose_aa, labels.betas, labels.vertices_cam_m, arm, second_rng
    )


@pytest.mark.parametrize("index", range(8))
def test_a_second_hand_is_a_left_one_beside_the_first(studio: Studio, index: int) -> None:
    labels, mesh = pair(studio, index)
    # the triangles of a right hand face outwards; those of its reflection face inwards
    assert trimesh.Trimesh(mesh.vertices_m, mesh.faces, process=False).volume < 0
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
    other = mesh.vertices_m[: studio.surface.smooth.shape[1]]
    assert np.linalg.norm(other.mean(0) - labels.vertices_cam_m.mean(0)) < FARTHEST_M + 0.2
    # smoothed vertices lie up to a millimeter or two inside those that were moved
    assert cKDTree(labels.vertices_cam_m).query(other)[0].min() > CONTACT_M - 0.003


def test_half_of_the_second_hands_touch_the_first(studio: Studio) -> None:
    near = CONTACT_M + STEP_M + 0.003
    gaps = []
    for index in range(24):
        labels, mesh = pair(studio, index)
        other = mesh.vertices_m[: studio.surface.smooth.shape[1]]
        gaps.append(cKDTree(labels.vertices_cam_m).query(other)[0].min())
    assert 6 <= (np.array(gaps) < near).sum() <= 22


def test_the_nearer_layer_is_in_front_in_each_pixel() -> None:
    def layer(gray: float, alpha: list[float], depth_m: list[float]) -> Layer:
        cover = np.array([alpha], np.float32)
        light = gray * np.repeat(cover[..., None], 3, axis=2)
        return Layer(light, cover, cover, np.array([depth_m], np.float32))

    red, blue = layer(1.0, [1, 1, 0.5, 0], [1, 3, 1, np.inf]), layer(3.0, [1, 1, 1, 1], [2, 2, 2, 2])
    for both in (composite(red, blue), composite(blue, red)):
        np.testing.assert_allclose(both.light[0, :, 0], [1, 3, 2, 3])
        np.testing.assert_allclose(both.alpha[0], 1)
        np.testing.assert_allclose(both.depth_m[0], [1, 2, 1, 2])
    np.testing.assert_array_equal(composite(Layer.empty(1, 4), blue).light, blue.light)


def test_labels_and_evaluation_images_do_not_depend_on_second_hands(tmp_path: Path) -> None:
    alone = write_freihand_synth(tmp_path / "alone", **COUNTS)
    beside = write_freihand_synth(tmp_path / "beside", **COUNTS, second_hand=1.0)
    names = [f"{split}_{field}.json" for split in ("training", "evaluation") for field in FIELDS]
    images = [f"evaluation/rgb/{k:08d}.jpg" for k in range(COUNTS["evaluation"])]
    for name in [*names, *images, "mocap.npz"]:
        assert (alone / name).read_bytes() == (beside / name).read_bytes(), name
    changed = [
        (alone / f"training/rgb/{k:08d}.jpg").read_bytes() != (beside / f"training/rgb/{k:08d}.jpg").read_bytes()
        for k in range(COUNTS["train"])
    ]
    assert sum(changed) >= COUNTS["train"] - 1  # one may be dropped, because it hides the first hand
    with pytest.raises(SynthError, match=r"second_hand: 1\.0 there, none requested"):
        write_freihand_synth(tmp_path / "beside", **COUNTS)
    with pytest.raises(SynthError, match=r"second_hand=1\.5"):
        write_freihand_synth(tmp_path / "other", **COUNTS, second_hand=1.5)


def test_the_mask_is_that_of_the_labeled_hand(studio: Studio) -> None:
    hidden = 0.0
    for index in range(6):
        pose_rng, *_ = random_streams(0, "training", index, 2)
        labels = sample_labels(studio, pose_rng)
        looks = [np.random.default_rng(7) for _ in range(2)]
        alone = render_foreground(studio, labels, looks[0]).layer
        beside = render_foreground(studio, labels, looks[1], second_rng=np.random.default_rng(index)).layer
        assert (beside.hand <= alone.hand + 1e-6).all()
        assert (beside.alpha >= alone.alpha - 1e-6).all()
        hidden += float((alone.hand - beside.hand).sum())
    assert hidden > 0
