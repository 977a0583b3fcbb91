"""Mistakes that prediction files have are named, and nothing is said about files that are merely bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.conventions import JOINT_ORDERS, NUM_JOINTS
from maskhand.scoring.benchmarks import score_files as score
from maskhand.scoring.diagnostics import Convention, diagnose

FREIHAND, HO3D = Convention("meters", "openpose21"), Convention("meters", "mano16_tips")


def hands(count: int = 60, noise_m: float = 0.004) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, truth), meters, OpenPose order: hands of one shape, turned and moved."""
    rng = np.random.default_rng(0)
    shape = np.zeros((NUM_JOINTS, 3))
    for finger, side in enumerate((-0.05, -0.03, 0.0, 0.02, 0.04)):  # bent, so that a mirror image is another shape
        shape[4 * finger + 1 : 4 * finger + 5] = [(0.03 + 0.02 * k, side, 0.01 * k * k) for k in range(4)]
    shape += rng.normal(0, 0.008, shape.shape)
    truth = shape @ Rotation.random(count, random_state=1).as_matrix()
    truth += rng.normal((0, 0, 0.6), 0.05, (count, 1, 3))
    return truth + rng.normal(0, noise_m, truth.shape) + rng.normal(0, 0.01, (count, 1, 3)), truth


def written_as(openpose: np.ndarray, order: str) -> np.ndarray:
    stored = np.empty_like(openpose)
    stored[:, list(JOINT_ORDERS[order])] = openpose
    return stored


@pytest.mark.parametrize("noise_m", [0.0, 0.004, 0.03, 0.1])
def test_nothing_is_said_about_files_that_are_right_or_merely_bad(noise_m: float) -> None:
    guess, truth = hands(noise_m=noise_m)
    assert diagnose(guess, truth, FREIHAND) == []
    assert diagnose(np.broadcast_to(truth[:1], truth.shape), truth, FREIHAND) == []  # the same hand everywhere
    assert diagnose(np.zeros_like(truth), truth, FREIHAND) == []
    assert diagnose(guess[:0], truth[:0], FREIHAND) == []


@pytest.mark.parametrize(("factor", "unit"), [(1000, "millimeters"), (100, "centimeters")])
def test_another_unit(factor: float, unit: str) -> None:
    guess, truth = hands()
    (sentence,) = diagnose(factor * guess, truth, FREIHAND)
    assert f"did you write {unit}? meters are expected" in sentence
    (sentence,) = diagnose(guess, 1000 * truth, Convention("millimeters", "openpose21"))
    assert "did you write meters? millimeters are expected" in sentence


@pytest.mark.parametrize("order", sorted(set(JOINT_ORDERS) - {"mano16_tips"}))
def test_another_joint_order(order: str) -> None:
    guess, truth = hands()
    (sentence,) = diagnose(written_as(guess, order), written_as(truth, "mano16_tips"), HO3D)
    assert f"read in the joint order {order}," in sentence and "mano16_tips is expected" in sentence


def test_other_axes_also_together_with_another_order_and_unit() -> None:
    guess, truth = hands()
    truth = written_as(truth * (1, -1, -1), "mano16_tips")
    (sentence,) = diagnose(written_as(guess, "mano16_tips"), truth, HO3D)
    assert "OpenCV's axes (y down, z forward) and OpenGL's?" in sentence
    unit, order, axes = diagnose(1000 * guess, truth, HO3D)
    assert "millimeters" in unit and "openpose21" in order and "OpenGL" in axes


def test_mirrored_hands_which_the_official_alignment_hides() -> None:
    guess, truth = hands()
    (sentence,) = diagnose(guess * (-1, 1, 1), truth, FREIHAND)
    assert "mirrored for the network and not mirrored back?" in sentence
    turn = Rotation.random(len(truth), random_state=2).as_matrix()
    (sentence,) = diagnose(guess * (-1, 1, 1) @ turn, truth, FREIHAND)
    assert sentence.startswith("most predictions are mirror images of the hands")


def test_hands_relative_to_the_wrist() -> None:
    guess, truth = hands()
    (sentence,) = diagnose(guess - guess[:, :1], truth, FREIHAND)
    assert sentence.startswith("every predicted wrist is at the origin") and "mm from the camera" in sentence


def test_every_benchmark_warns(tmp_path: Path) -> None:
    guess, truth = hands()
    for name, value in (("evaluation_xyz", truth), ("evaluation_verts", truth)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value.tolist()))
    (tmp_path / "pred.json").write_text(json.dumps([(1000 * guess).tolist(), []]))
    found = {"freihand": score("freihand", tmp_path, tmp_path / "pred.json").warnings}
    np.savez(tmp_path / "d.npz", image_id=np.arange(60), joint_3d_m=truth)
    lines = [f"{k}," + ",".join(map(str, row.ravel())) for k, row in enumerate(guess)]
    (tmp_path / "d.txt").write_text("\n".join(lines))
    found["dexycb"] = score("dexycb", tmp_path / "d.npz", tmp_path / "d.txt").warnings
    both = 1000 * np.concatenate([written_as(x, "interhand21") for x in (truth, truth)], axis=1)
    valid, types = np.ones((60, 42)), np.array(["interacting"] * 60)
    np.savez(tmp_path / "i.npz", joint_cam_mm=both, joint_valid=valid, hand_type=types)
    np.savez(tmp_path / "ip.npz", joint_cam_mm=both / 1000)
    found["interhand"] = score("interhand", tmp_path / "i.npz", tmp_path / "ip.npz").warnings
    for benchmark, warnings in found.items():
        assert sum("did you write" in line for line in warnings) == 1, (benchmark, warnings)
    for state in ("all", "vis", "occ"):
        points = np.concatenate([500 * np.abs(truth[..., :2]), np.ones((60, 21, 1))], axis=-1)
        np.savez(tmp_path / f"x_{state}.npz", hand_keypoints_2d=points, scale=np.full(60, 90.0))
    np.savez(tmp_path / "h.npz", keypoints_2d_px=np.abs(truth[..., :2]))
    lines = [w for w in score("hint", tmp_path / "x", tmp_path / "h.npz").warnings if "did you write" in w]
    assert len(lines) == 1 and "Pixels of the original image are expected" in lines[0]
