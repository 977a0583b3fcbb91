"""Mistakes that prediction files have are named, and nothing is said about files that are merely bad."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from maskhand.conventions import JOINT_ORDERS, NUM_JOINTS
from maskhand.scoring.benchmarks import score_files as score
from maskhand.scoring.diagnostics import Convention, diagnose
from maskhand.scoring.keypoint_diagnostics import diagnose_keypoints
from maskhand.scoring.plausible import check_unit
from maskhand.scoring.scores import ScoreError

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
    for merely_bad in (guess, np.zeros_like(truth), 1e-9 * guess, 5 * guess, guess[:0]):
        check_unit("pred.json", merely_bad, truth[: len(merely_bad)], "meters")
    assert diagnose(np.broadcast_to(truth[:1], truth.shape), truth, FREIHAND) == []  # the same hand everywhere
    assert diagnose(np.zeros_like(truth), truth, FREIHAND) == []
    assert diagnose(guess[:0], truth[:0], FREIHAND) == []


@pytest.mark.parametrize(("factor", "unit"), [(1000, "millimeters"), (100, "centimeters")])
def test_another_unit(factor: float, unit: str) -> None:
    guess, truth = hands()
    with pytest.raises(ScoreError, match=rf"pred.json: .*did you write {unit}\? Meters are expected"):
        check_unit("pred.json", factor * guess, truth, "meters")
    with pytest.raises(ScoreError, match=r"did you write meters\? Millimeters are expected"):
        check_unit("pred.json", guess, 1000 * truth, "millimeters")
    with pytest.raises(ScoreError, match=r"30\.\d times as large as the true ones, .*: Meters are expected"):
        check_unit("pred.json", 30 * guess, truth, "meters")  # the unit is a bone of the hand


@pytest.mark.parametrize("order", sorted(set(JOINT_ORDERS) - {"mano16_tips"}))
def test_another_joint_order(order: str) -> None:
    guess, truth = hands()
    (sentence,) = diagnose(written_as(guess, order), written_as(truth, "mano16_tips"), HO3D)
    assert f"read in the joint order {order}," in sentence and "mano16_tips is expected" in sentence


def test_other_axes_also_together_with_another_order() -> None:
    guess, truth = hands()
    truth = written_as(truth * (1, -1, -1), "mano16_tips")
    (sentence,) = diagnose(written_as(guess, "mano16_tips"), truth, HO3D)
    assert "OpenCV's axes (y down, z forward) and OpenGL's?" in sentence
    order, axes = diagnose(guess, truth, HO3D)
    assert "openpose21" in order and "OpenGL" in axes


def test_mirrored_hands_which_the_official_alignment_hides() -> None:
    guess, truth = hands()
    (sentence,) = diagnose(guess * (-1, 1, 1), truth, FREIHAND)
    assert "mirrored for the network and not mirrored back?" in sentence
    turn = Rotation.random(len(truth), random_state=2).as_matrix()
    (sentence,) = diagnose(guess * (-1, 1, 1) @ turn, truth, FREIHAND)
    assert sentence.startswith("most predictions are mirror images of the hands")


def varied(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, truth), meters: hands that differ in pose."""
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 0.04, (count, NUM_JOINTS, 3)) + np.array([0, 0, 0.6])
    return truth + rng.normal(0, 0.005, truth.shape), truth


def test_another_order_of_the_hands() -> None:
    guess, truth = varied()
    as_text = sorted(range(60), key=str)
    assert diagnose(guess, truth, FREIHAND) == []
    for other in (guess[as_text], guess[::-1], np.roll(guess, 3, 0)):
        (sentence,) = diagnose(other, truth, FREIHAND)
        assert "are they in another order, such as that of file names sorted as text?" in sentence
    assert diagnose(np.random.default_rng(6).permutation(guess.ravel()).reshape(guess.shape), truth, FREIHAND) == []


def test_keypoints_that_are_not_in_the_picture() -> None:
    """HInt: y before x, pixels of the crop, another order; nothing about keypoints that are merely bad."""
    guess, truth = (x[..., :2] * 1000 for x in varied())
    place = np.random.default_rng(7).uniform(100, 900, (60, 1, 2))
    guess, truth, counts, size = guess + place, truth + place, np.ones((60, NUM_JOINTS), bool), np.full(60, 150.0)
    for wrong, said in (
        (guess, ""),
        (guess + np.random.default_rng(8).normal(0, 80, guess.shape), ""),
        (guess[..., ::-1], "x is first"),
        (1.7 * (guess - place) + 112, "in pixels of the crop"),
        (guess[::-1], "in another order"),
    ):
        sentences = diagnose_keypoints(wrong, truth, counts, size)
        assert [said in one for one in sentences] == ([True] if said else [])


def test_the_left_hand_written_first(tmp_path: Path) -> None:
    gt, pred = write_interhand(tmp_path, *varied(), wrong="")
    assert not [one for one in score("interhand", gt, pred).warnings if "first" in one]
    arrays = np.random.default_rng(9).normal(0, 40, (60, 42, 3)) + np.array([0, 0, 700])
    np.savez(gt, joint_cam_mm=arrays, joint_valid=np.ones((60, 42)), hand_type=np.array(["interacting"] * 60))
    np.savez(pred, joint_cam_mm=np.roll(arrays, 21, 1))
    assert "the right hand is expected first" in score("interhand", gt, pred).warnings[-1]


@pytest.mark.parametrize("benchmark", ["freihand", "dexycb", "interhand"])
def test_labels_in_another_unit_are_not_blamed_on_the_prediction(tmp_path: Path, benchmark: str) -> None:
    guess, truth = hands()
    gt, pred = WRITERS[benchmark](tmp_path, guess, truth, "")
    if benchmark == "freihand":
        (gt / "evaluation_xyz.json").write_text(json.dumps((1000 * truth).tolist()))
    else:
        with np.load(gt) as arrays:
            name = "joint_3d_m" if benchmark == "dexycb" else "joint_cam_mm"
            np.savez(gt, **{**arrays, name: arrays[name] * (1000 if benchmark == "dexycb" else 0.001)})
    with pytest.raises(ScoreError, match="are the labels in another unit") as error:
        score(benchmark, gt, pred)
    assert str(pred) not in str(error.value)


def test_hands_relative_to_the_wrist() -> None:
    guess, truth = hands()
    (sentence,) = diagnose(guess - guess[:, :1], truth, FREIHAND)
    assert sentence.startswith("every predicted wrist is at the origin") and "mm from the camera" in sentence


@pytest.mark.parametrize("wrong", ["unit", "unit of the mesh", "absurd", "absurd truth"])
@pytest.mark.parametrize("benchmark", ["freihand", "dexycb", "interhand", "hint"])
def test_no_benchmark_scores_what_cannot_be_meant(tmp_path: Path, benchmark: str, wrong: str) -> None:
    """Another unit, or a number beyond any place, whose squares overflow: refused before a number comes out."""
    guess, truth = hands()
    if wrong == "absurd":
        guess[59, 7, 1] = 1e200
    if wrong == "absurd truth":
        truth[59, 7, 1] = -1e200
    paths = WRITERS[benchmark](tmp_path, guess, truth, wrong)
    with pytest.raises(ScoreError) as error:
        score(benchmark, *paths)
    said = str(error.value)
    assert str(tmp_path) in said and "expected" in said
    if wrong.startswith("unit"):
        assert "did you write" in said
        assert ("verts" in said) == (wrong == "unit of the mesh" and benchmark == "freihand")
    else:
        assert re.search(r"(sample|image_id) 59 holds|line 60 holds", said) and re.search(r"e\+20\d, expected", said)


def write_freihand(folder: Path, guess: np.ndarray, truth: np.ndarray, wrong: str) -> tuple[Path, Path]:
    for name in ("evaluation_xyz", "evaluation_verts"):
        (folder / f"{name}.json").write_text(json.dumps(truth.tolist()))
    unit = {"unit": (1000, 1000), "unit of the mesh": (1, 1000)}.get(wrong, (1, 1))
    (folder / "pred.json").write_text(json.dumps([(factor * guess).tolist() for factor in unit]))
    return folder, folder / "pred.json"


def write_dexycb(folder: Path, guess: np.ndarray, truth: np.ndarray, wrong: str) -> tuple[Path, Path]:
    np.savez(folder / "gt.npz", image_id=np.arange(60), joint_3d_m=truth)
    factor = 1 if wrong.startswith("unit") else 1000
    lines = [f"{k}," + ",".join(map(str, row.ravel())) for k, row in enumerate(factor * guess)]
    (folder / "pred.txt").write_text("\n".join(lines))
    return folder / "gt.npz", folder / "pred.txt"


def write_interhand(folder: Path, guess: np.ndarray, truth: np.ndarray, wrong: str) -> tuple[Path, Path]:
    mine, both = (
        1000 * np.concatenate([written_as(x, "interhand21") for x in (one, one)], axis=1) for one in (guess, truth)
    )
    valid, types = np.ones((60, 42)), np.array(["interacting"] * 60)
    np.savez(folder / "gt.npz", joint_cam_mm=both, joint_valid=valid, hand_type=types)
    np.savez(folder / "pred.npz", joint_cam_mm=mine / (1000 if wrong.startswith("unit") else 1))
    return folder / "gt.npz", folder / "pred.npz"


def write_hint(folder: Path, guess: np.ndarray, truth: np.ndarray, wrong: str) -> tuple[Path, Path]:
    points, mine = (np.array([300, 200]) + 500 * one[..., :2] for one in (truth, guess))
    for state in ("all", "vis", "occ"):
        labels = np.concatenate([points, np.ones((60, 21, 1))], axis=-1)
        np.savez(folder / f"x_{state}.npz", hand_keypoints_2d=labels, scale=np.full(60, 90.0))
    np.savez(folder / "pred.npz", keypoints_2d_px=mine / (1000 if wrong.startswith("unit") else 1))
    return folder / "x", folder / "pred.npz"


WRITERS = {"freihand": write_freihand, "dexycb": write_dexycb, "interhand": write_interhand, "hint": write_hint}


@pytest.mark.parametrize(
    ("scale", "factor", "said"),
    [
        (90 / 200, 1.0, "in units of 200 px, or a fraction"),
        (90 / 640, 1.0, "a fraction of the picture"),
        (90 * 200, 1.0, "are the joints in pixels"),
        (90.0, 1 / 640, "are the joints in pixels"),
        (90.0, 1.0, ""),
        (400.0, 1.0, ""),
    ],
)
def test_boxes_and_joints_of_hint_in_one_unit(tmp_path: Path, scale: float, factor: float, said: str) -> None:
    guess, truth = hands()
    gt, pred = write_hint(tmp_path, guess, truth, "")
    for path in tmp_path.glob("x_*.npz"):
        with np.load(path) as arrays:
            points = arrays["hand_keypoints_2d"] * (factor, factor, 1)
        np.savez(path, hand_keypoints_2d=points, scale=np.full(60, scale))
    if not said:
        assert score("hint", gt, pred).metrics["epe_all_px"] > 0
        return
    with pytest.raises(ScoreError, match=rf"x_all\.npz: scale is a box of .* expected .*(?i:{said})"):
        score("hint", gt, pred)
