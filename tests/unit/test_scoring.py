"""`maskhand score` on files in the official formats, against literal twins of the official programs."""

from __future__ import annotations

import io
import json
import zipfile
from functools import reduce
from operator import add
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import official_twins as twins
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_layouts import dexycb as published
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from maskhand.adapters.base import RawDataError
from maskhand.cli import app
from maskhand.commands.score import score as score_verb
from maskhand.evaluation.scoring import dexycb, interhand
from maskhand.evaluation.scoring.benchmarks import BENCHMARKS
from maskhand.evaluation.scoring.json_lists import read_samples
from maskhand.evaluation.scoring.npz import Npz
from maskhand.evaluation.scoring.scores import ScoreError, Scores
from maskhand.evaluation.scoring.stream import total
from maskhand.steps.score import score

RELATIVE = 1e-9
JOINT_KEYS = ("mpjpe_mm", "pa_mpjpe_mm", "auc_joints", "auc_joints_aligned")
MESH_KEYS = ("mpvpe_mm", "pa_mpvpe_mm", "auc_vertices", "auc_vertices_aligned")
F_KEYS = ("f_5mm", "f_15mm", "f_5mm_aligned", "f_15mm_aligned")
HEADLINES = {
    "freihand": {*JOINT_KEYS, *MESH_KEYS, *F_KEYS},
    "ho3d": {*JOINT_KEYS, *MESH_KEYS, *F_KEYS, "scale_translation_mpjpe_mm", "auc_joints_scale_translation"},
    "dexycb": {f"{k}_{m}" for k in ("absolute", "root_relative", "pa") for m in ("mpjpe_mm", "auc")},
    "hint": {f"pck_{t}_{s}" for t in ("005", "010", "015") for s in ("all", "visible", "occluded")},
    "interhand": {"mpjpe_all_mm", "mpjpe_single_mm", "mpjpe_interacting_mm", "mrrpe_mm"},
}


def hands(count: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and predictions, metres: near, far, mirrored, a single point, all zero, and one exactly right."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(points, 3)) * (0.05, 0.03, 0.015)
    truth = (shape + rng.normal(size=(count, points, 3)) * 0.004) @ Rotation.random(
        count, random_state=seed
    ).as_matrix()
    truth += rng.normal(size=(count, 1, 3)) * 0.1 + (0, 0, 0.7)
    guess = truth + rng.normal(size=truth.shape) * 0.004 + rng.normal(size=(count, 1, 3)) * 0.006
    guess[1] *= (-1, 1, 1)
    guess[2] = truth[2].mean(0)
    guess[3] = 0
    guess[4] = truth[4]
    guess[5] = 1.3 * truth[5] @ Rotation.random(random_state=1).as_matrix() + 0.2
    guess[6] = truth[6] * (1, 1, 0)
    return truth, guess


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture
def mesh_files(tmp_path: Path):
    """A folder of truth, and how to write a prediction; 70 hands are more than one piece."""
    xyz, xyz_pred = hands(70, 21, 0)
    verts, verts_pred = hands(70, 90, 1)
    write_json(tmp_path / "evaluation_xyz.json", xyz.tolist())
    write_json(tmp_path / "evaluation_verts.json", verts.tolist())
    write_json(tmp_path / "pred.json", [xyz_pred.tolist(), verts_pred.tolist()])
    return tmp_path, (xyz, verts, xyz_pred, verts_pred)


@pytest.mark.parametrize("benchmark", ["freihand", "ho3d"])
def test_mesh_benchmarks_equal_the_official_programs(benchmark: str, mesh_files) -> None:
    folder, arrays = mesh_files
    found = score(benchmark, folder, folder / "pred.json")
    expected = twins.mesh_benchmark(*arrays, scale_translation=benchmark == "ho3d")
    assert dict(found.metrics) == pytest.approx(expected, rel=RELATIVE)
    assert 0 < found.metrics["f_5mm"] < found.metrics["f_15mm"] < 1
    assert found.counts == {"samples": 70, "meshes": 70, "not_finite": 0}
    assert ("70 samples, while the official set has" in found.warnings[0]) and len(found.warnings) == 1
    assert np.mean(found.per_joint["pa_mpjpe_mm"]) == pytest.approx(found.metrics["pa_mpjpe_mm"])


def test_a_prediction_folder_and_joints_alone(mesh_files) -> None:
    folder, (xyz, verts, xyz_pred, verts_pred) = mesh_files
    (folder / "sent").mkdir()
    write_json(folder / "sent" / "any_name.json", [xyz_pred.tolist(), []])
    found = score("freihand", folder, folder / "sent")
    expected = twins.mesh_benchmark(xyz, verts, xyz_pred, verts_pred)
    assert {k: found.metrics[k] for k in JOINT_KEYS} == pytest.approx({k: expected[k] for k in JOINT_KEYS})
    assert all(np.isnan(found.metrics[k]) for k in (*MESH_KEYS, *F_KEYS))
    assert any("no verts" in warning for warning in found.warnings)


def test_predictions_that_are_not_finite_are_scored_as_zeros_and_counted(mesh_files) -> None:
    folder, (xyz, verts, xyz_pred, verts_pred) = mesh_files
    broken_xyz, broken_verts = xyz_pred.tolist(), verts_pred.tolist()
    broken_xyz[7][3][1] = float("nan")
    broken_xyz[8][0][0] = None
    broken_verts[8][5][2] = float("inf")
    broken_verts[69][5][2] = float("-inf")
    write_json(folder / "pred.json", [broken_xyz, broken_verts])
    found = score("freihand", folder, folder)
    xyz_pred[[7, 8]], verts_pred[[8, 69]] = 0, 0
    assert dict(found.metrics) == pytest.approx(twins.mesh_benchmark(xyz, verts, xyz_pred, verts_pred), rel=RELATIVE)
    assert found.counts["not_finite"] == 3
    assert any("3 predictions are not finite" in warning for warning in found.warnings)


def test_the_zero_prediction(mesh_files) -> None:
    """Everything at the camera: the raw error is the hand's distance, the aligned one its spread about its centroid."""
    folder, (xyz, verts, *_) = mesh_files
    write_json(folder / "pred.json", [np.zeros_like(xyz).tolist(), np.zeros_like(verts).tolist()])
    found = score("freihand", folder, folder).metrics
    assert found["mpjpe_mm"] == pytest.approx(1e3 * np.linalg.norm(xyz, axis=-1).mean())
    spread = np.linalg.norm(xyz - xyz.mean(1, keepdims=True), axis=-1)
    assert found["pa_mpjpe_mm"] == pytest.approx(1e3 * spread.mean())
    assert found["f_15mm"] == 0 and np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dexycb_equals_the_official_program(tmp_path: Path, dtype) -> None:
    truth, guess = hands(30, 21, 2)
    truth = truth.astype(dtype)
    truth[[11, 20]] = -1
    image_id = np.random.default_rng(0).permutation(1000)[:30]
    lines = [
        f"{i}," + ",".join(repr(v) for v in (1000 * g).ravel().tolist()) for i, g in zip(image_id, guess, strict=True)
    ]
    lines += [f"{image_id[0]}," + ",".join(["0"] * 63), lines[0], "100000," + ",".join(["1"] * 63), ""]
    np.savez(tmp_path / "gt.npz", image_id=image_id, joint_3d_m=truth)
    (tmp_path / "results.txt").write_text("\n".join(lines))
    found = score("dexycb", tmp_path / "gt.npz", tmp_path / "results.txt")
    expected = twins.dexycb(image_id, truth, {int(i): 1000 * g for i, g in zip(image_id, guess, strict=True)})
    assert dict(found.metrics) == pytest.approx(expected, rel=RELATIVE)
    assert found.counts == {"samples": 28, "no_hand": 2, "not_finite": 0, "predictions": 31}


def interhand_files(folder: Path, count: int = 40):
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(count, 42, 3)) * 60 + (0, 0, 900)
    guess = truth + rng.normal(size=truth.shape) * 8 + rng.normal(size=(count, 1, 3)) * 50
    valid = rng.random((count, 42)) < 0.8
    valid[:20, [20, 41]] = True
    hand_type = rng.choice(["right", "left", "interacting"], count)
    np.savez(folder / "gt.npz", joint_cam_mm=truth, joint_valid=valid.astype(np.float32), hand_type=hand_type)
    np.savez_compressed(folder / "pred.npz", joint_cam_mm=guess)
    return truth, valid, hand_type, guess


def test_interhand_equals_the_official_program(tmp_path: Path) -> None:
    arrays = interhand_files(tmp_path)
    found = score("interhand", tmp_path / "gt.npz", tmp_path / "pred.npz")
    assert dict(found.metrics) == pytest.approx(twins.interhand(*arrays), rel=RELATIVE)
    assert found.per_joint["mpjpe_all_mm"][20] == 0 and found.joints[20] == "right_wrist"
    assert found.counts["samples"] == 40 and found.counts["single"] + found.counts["interacting"] == 40


def test_interhand_ignores_what_is_not_annotated_and_says_what_is_missing(tmp_path: Path) -> None:
    truth, valid, hand_type, guess = interhand_files(tmp_path)
    hand_type[:] = "right"
    valid[:, 21:] = False
    guess[:, 21:] = np.nan
    np.savez(tmp_path / "gt.npz", joint_cam_mm=truth, joint_valid=valid[..., None], hand_type=hand_type.astype("S"))
    np.savez(tmp_path / "pred.npz", joint_cam_mm=guess)
    found = score("interhand", tmp_path / "gt.npz", tmp_path / "pred.npz")
    ok = valid[:, :21] & valid[:, 20:21]
    error = np.linalg.norm((guess - guess[:, 20:21] - truth + truth[:, 20:21])[:, :21], axis=-1)
    expected = np.mean([error[ok[:, j], j].mean() for j in range(21)])
    assert found.metrics["mpjpe_all_mm"] == found.metrics["mpjpe_single_mm"] == pytest.approx(expected)
    assert np.isnan(found.metrics["mpjpe_interacting_mm"]) and np.isnan(found.metrics["mrrpe_mm"])
    text = "\n".join(found.warnings)
    assert "mpjpe_interacting_mm: no joint is annotated" in text and "mrrpe_mm: no interacting sample" in text
    assert "left_wrist" in text and found.counts["not_finite"] == 0


def hint_files(folder: Path, count: int = 30, columns: int = 2):
    rng = np.random.default_rng(4)
    target = rng.uniform(0, 500, (count, 21, 2))
    scale = rng.uniform(80, 200, (count, columns)).astype(np.float32)
    guess = target + rng.normal(size=target.shape) * 9
    guess[5, 3] = np.nan
    occluded, annotated = rng.random((count, 21)) < 0.3, rng.random((count, 21)) < 0.9
    confidence = {"all": annotated, "vis": annotated & ~occluded, "occ": annotated & occluded}
    extra = np.array([{} for _ in range(count)], dtype=object)
    for state, seen in confidence.items():
        points = np.concatenate([target, seen[..., None]], axis=-1)
        values = {"scale": scale if columns > 1 else scale[:, 0], "center": target[:, 0], "extra_info": extra}
        np.savez(folder / f"TEST_newdays_img_{state}.npz", hand_keypoints_2d=points, **values)
    np.savez(folder / "pred.npz", keypoints_2d_px=guess)
    return guess, target, confidence, scale


@pytest.mark.parametrize("columns", [1, 2])
def test_hint_equals_the_official_program(tmp_path: Path, columns: int) -> None:
    guess, target, confidence, scale = hint_files(tmp_path, columns=columns)
    names = {"all": "all", "vis": "visible", "occ": "occluded"}
    for gt in (tmp_path, tmp_path / "TEST_newdays_img"):
        found = score("hint", gt, tmp_path / "pred.npz").metrics
        for state, name in names.items():
            for threshold in (0.05, 0.10, 0.15):
                expected = twins.pck(guess, target, confidence[state], scale.max(1), threshold)
                assert found[f"pck_{round(100 * threshold):03d}_{name}"] == pytest.approx(expected, rel=RELATIVE)


def test_hint_with_a_joint_that_is_never_annotated_has_no_number_as_in_the_official_program(tmp_path: Path) -> None:
    guess, target, confidence, scale = hint_files(tmp_path)
    confidence["occ"][:, 4] = False
    points = np.concatenate([target, confidence["occ"][..., None]], axis=-1)
    np.savez(tmp_path / "TEST_newdays_img_occ.npz", hand_keypoints_2d=points, scale=scale)
    found = score("hint", tmp_path, tmp_path / "pred.npz")
    assert np.isnan(found.metrics["pck_010_occluded"]) and np.isfinite(found.metrics["pck_010_all"])
    others = twins.pck(guess, target, confidence["occ"], scale.max(1), 0.1)
    (sentence,) = [line for line in found.warnings if "never annotated" in line]
    assert sentence.startswith("pck_*_occluded: never annotated: thumb_tip;") and f"{others:.4f}" in sentence
    assert np.isnan(found.per_joint["pck_010_occluded"][4])
    assert np.nanmean(found.per_joint["pck_010_occluded"]) == pytest.approx(others)


def test_confidence_of_exactly_a_half_is_not_annotated(tmp_path: Path) -> None:
    hint_files(tmp_path)
    points = np.concatenate([np.zeros((30, 21, 2)), np.full((30, 21, 1), 0.5)], axis=-1)
    np.savez(tmp_path / "TEST_newdays_img_vis.npz", hand_keypoints_2d=points, scale=np.ones(30))
    found = score("hint", tmp_path, tmp_path / "pred.npz")
    assert np.isnan(found.metrics["pck_005_visible"]) and found.counts["keypoints_visible"] == 0
    assert "pck_*_visible: no joint is annotated in any sample, so there is no number" in found.warnings


def test_a_perfect_prediction_differs_from_zero_exactly_where_the_official_program_does(tmp_path: Path) -> None:
    """The first threshold is 0: the last bit of an aligned wrist or bone is 1/198 of a joint's area."""
    (xyz, _), (verts, _) = hands(40, 21, 7), hands(40, 30, 8)
    write_json(tmp_path / "evaluation_xyz.json", xyz.tolist())
    write_json(tmp_path / "evaluation_verts.json", verts.tolist())
    write_json(tmp_path / "pred.json", [xyz.tolist(), verts.tolist()])
    found = score("ho3d", tmp_path, tmp_path).metrics
    expected = twins.mesh_benchmark(xyz, verts, xyz, verts, scale_translation=True)
    assert 0.99 < expected["auc_joints_scale_translation"] < 1 and expected["auc_joints"] == 1
    for name in ("auc_joints", "auc_joints_aligned", "auc_joints_scale_translation", "auc_vertices_aligned"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12), name


@pytest.mark.parametrize("kind", ["bytes", "objects", "pairs"])
def test_interhand_types_in_every_form_that_files_have(tmp_path: Path, kind: str) -> None:
    truth, valid, hand_type, _ = interhand_files(tmp_path)
    pairs = np.array([[name != "left", name != "right"] for name in hand_type])
    written = {"bytes": hand_type.astype("S"), "objects": hand_type.astype(object), "pairs": pairs}[kind]
    whole = score("interhand", tmp_path / "gt.npz", tmp_path / "pred.npz")
    np.savez(tmp_path / "gt.npz", joint_cam_mm=truth, joint_valid=valid, hand_type=written)
    found = score("interhand", tmp_path / "gt.npz", tmp_path / "pred.npz")
    assert found.metrics == whole.metrics and found.counts == whole.counts


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (np.arange(40), "hand_type holds '0', expected right, left, interacting"),
        (np.zeros((40, 2)), "hand_type holds 'neither'"),
        (np.array([Path("right")] * 40, dtype=object), "the pickle asks for pathlib"),
    ],
)
def test_other_hand_types_are_refused(tmp_path: Path, written: np.ndarray, sentence: str) -> None:
    truth, valid, *_ = interhand_files(tmp_path)
    np.savez(tmp_path / "gt.npz", joint_cam_mm=truth, joint_valid=valid, hand_type=written)
    with pytest.raises(ScoreError, match=sentence):
        score("interhand", tmp_path / "gt.npz", tmp_path / "pred.npz")


def test_a_zip_as_the_servers_take_it(mesh_files) -> None:
    folder, _ = mesh_files
    sent = folder / "pred.zip"
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "pred.json", "pred.json")
        archive.writestr("__MACOSX/._pred.json", "")
    zipped, plain = (score("freihand", folder, path).to_json() for path in (sent, folder / "pred.json"))
    assert zipped == plain
    sent.write_bytes(sent.read_bytes()[:3000] + b"\0" * 500 + sent.read_bytes()[3500:])
    with pytest.raises(ScoreError, match=r"pred\.zip: the \.zip is damaged"):
        score("freihand", folder, sent)
    with zipfile.ZipFile(sent, "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ScoreError, match=r"expected one \.json in this \.zip, found a\.json, b\.json"):
        score("freihand", folder, sent)


def test_a_truth_that_is_not_finite_is_a_sentence(mesh_files) -> None:
    folder, (xyz, *_) = mesh_files
    xyz[3, 2, 1] = np.nan
    write_json(folder / "evaluation_xyz.json", xyz.tolist())
    with pytest.raises(ScoreError, match=r"evaluation_xyz\.json: xyz: sample 3 is not finite"):
        score("freihand", folder, folder)


def test_the_command_prints_a_table_and_writes_the_promised_keys(tmp_path: Path, mesh_files) -> None:
    folder, _ = mesh_files
    interhand_files(tmp_path)
    files = {"freihand": (folder, folder / "pred.json"), "interhand": (tmp_path / "gt.npz", tmp_path / "pred.npz")}
    for benchmark, (gt, pred) in files.items():
        out = tmp_path / "scores" / f"{benchmark}.json"
        run = CliRunner().invoke(app, ["score", benchmark, "--gt", str(gt), "--pred", str(pred), "--json", str(out)])
        assert run.exit_code == 0, run.output
        values = json.loads(out.read_text())
        assert HEADLINES[benchmark] <= set(values) and all(isinstance(values[k], float) for k in HEADLINES[benchmark])
        assert set(values) - HEADLINES[benchmark] == {"benchmark", "counts", "joints", "per_joint", "warnings"}
        assert all(name in run.output for name in HEADLINES[benchmark]) and "official set has" in run.output


def test_headline_keys_of_the_others(tmp_path: Path) -> None:
    hint_files(tmp_path)
    metrics = score("hint", tmp_path, tmp_path / "pred.npz").metrics
    assert set(metrics) == HEADLINES["hint"] | {f"epe_{s}_px" for s in ("all", "visible", "occluded")}
    assert (
        set(HEADLINES)
        == set(BENCHMARKS)
        == set(get_args(get_type_hints(score_verb, include_extras=False)["benchmark"]))
    )


def test_nan_becomes_null_in_json() -> None:
    scores = Scores(
        "x", {"a_mm": float("nan"), "b": 0.5}, {"samples": 0}, {"a_mm": np.array([np.nan, 1.0])}, ("p", "q"), ()
    )
    values = json.loads(scores.to_json())
    assert values["a_mm"] is None and values["per_joint"]["a_mm"] == [None, 1.0]
    assert scores.table() == [("a_mm", "–"), ("b", "0.5000")]


XYZ = np.zeros((3, 21, 3)).tolist()
VERTS = np.zeros((3, 5, 3)).tolist()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "pred.json: cannot be read (No such file or directory); check the path"),
        ("", "[xyz, verts]: expected 2 lists of samples, found 0"),
        ('{"xyz": []}', "[xyz, verts]: expected JSON lists of numbers, found b'{\"xyz\": []}'"),
        (json.dumps([XYZ]), "[xyz, verts]: expected 2 lists of samples, found 1"),
        (json.dumps([XYZ, VERTS, VERTS]), "more than 2 lists of samples"),
        (json.dumps([XYZ, VERTS])[:-9], "the file ends inside a list; it was cut short, write it again"),
        (json.dumps([XYZ[:2], VERTS]), "xyz has 2 samples, the ground truth 3"),
        (json.dumps([XYZ, VERTS[:1]]), "verts has 1 samples, the ground truth 3"),
        (json.dumps([XYZ, [*VERTS, *VERTS]]), "verts has 6 samples, the ground truth 3"),
        (json.dumps([[*XYZ[:2], XYZ[0][:20]], VERTS]), "xyz: sample 2 is not a list of 21 x 3 numbers (its"),
        (json.dumps([[XYZ[0], [1, 2, 3], XYZ[0]], VERTS]), "xyz: sample 1 is not a list of 21 x 3 numbers"),
        (json.dumps([XYZ, [*VERTS[:2], VERTS[0][:4]]]), "verts: sample 2 is not a list of 5 x 3 numbers"),
        (json.dumps([XYZ, [v[:4] for v in VERTS]]), "a mesh has 4 vertices, expected 5 as in the ground truth"),
        (json.dumps([XYZ, VERTS]).replace("0.0", "zero", 1), "not JSON"),
        (json.dumps([XYZ, VERTS]).replace("0.0", '"a"', 1), "xyz: sample 0 is not a list of 21 x 3 numbers"),
    ],
)  # fmt: skip
def test_bad_json_is_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    write_json(tmp_path / "evaluation_xyz.json", XYZ)
    write_json(tmp_path / "evaluation_verts.json", VERTS)
    if text is not None:
        (tmp_path / "pred.json").write_text(text)
    with pytest.raises(ScoreError) as error:
        score("freihand", tmp_path, tmp_path / "pred.json")
    assert sentence in str(error.value) and str(tmp_path / "pred.json") in str(error.value)


def test_bad_dexycb_files_are_sentences(tmp_path: Path) -> None:
    gt, pred = tmp_path / "gt.npz", tmp_path / "pred.txt"
    np.savez(gt, image_id=np.arange(3), joint_3d_m=np.zeros((3, 21, 3), np.float32))
    good = ",".join(["0.5"] * 63)
    for text, sentence in (
        (f"0,{good}\n1,{good}\n", "no prediction for image_id 2"),
        (f"0,{good}\n1,2,3\n", "line 2 has 3 values, expected 64"),
        (f"0,{good}\n1.5,{good}\n", "line 2 starts with '1.5', expected an image id"),
        (f"0,{good}\n1,{good.replace('0.5', 'a', 1)}\n", "could not convert string to float"),
        ("", "no prediction for image_id 0"),
    ):
        pred.write_text(text)
        with pytest.raises(ScoreError, match=sentence):
            score("dexycb", gt, pred)
    np.savez(gt, image_id=np.arange(3), joint_3d_m=np.zeros((2, 21, 3)))
    with pytest.raises(ScoreError, match="joint_3d_m has 2 rows, image_id 3"):
        score("dexycb", gt, pred)


def test_dexycb_is_scored_from_its_own_folder_as_from_an_npz(tmp_path: Path) -> None:
    subjects = (7, 8)
    rng = np.random.default_rng(0)
    folder, joints = tmp_path / "raw", []
    for serial in published.SERIALS:
        path = folder / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("color: {fx: 600.0, fy: 600.0, ppx: 320.0, ppy: 240.0}\n")
    (folder / "calibration" / "mano_x").mkdir()
    (folder / "calibration" / "mano_x" / "mano.yml").write_text("betas: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n")
    for subject in subjects:
        for sequence in (0, 1):
            home = folder / f"{published.DATES[subject]}-subject-{subject + 1:02d}" / f"sequence{sequence}"
            home.mkdir(parents=True)
            (home / "meta.yml").write_text("num_frames: 2\nmano_sides: [right]\nmano_calib: [x]\n")
            for serial in published.SERIALS:
                for frame in range(2):
                    joints.append(
                        rng.normal(size=(21, 3)).astype(np.float32)
                        if rng.random() < 0.8
                        else -np.ones((21, 3), np.float32)
                    )
                    (home / serial).mkdir(exist_ok=True)
                    np.savez(home / serial / f"labels_{frame:06d}.npz", joint_3d=joints[-1][None])
    truth = np.stack(joints).astype(np.float32)
    np.savez(tmp_path / "gt.npz", image_id=np.arange(len(truth)), joint_3d_m=truth)
    guess = 1000 * truth + rng.normal(size=truth.shape)
    lines = (f"{k}," + ",".join(f"{v:.4f}" for v in row.ravel()) for k, row in enumerate(guess))
    (tmp_path / "pred.txt").write_text("\n".join(lines))
    whole, own = (score("dexycb", gt, tmp_path / "pred.txt", "s1_test") for gt in (tmp_path / "gt.npz", folder))
    assert own.metrics == whole.metrics and own.counts == whole.counts and own.counts["no_hand"] > 0
    with pytest.raises(RawDataError, match="not found"):
        score("dexycb", folder, tmp_path / "pred.txt", "s1_val")
    with pytest.raises(ScoreError, match="no split 's9'"):
        score("dexycb", folder, tmp_path / "pred.txt", "s9")
    np.savez(home / serial / "labels_000001.npz", other=np.zeros(3))
    with pytest.raises(ScoreError, match="no 'joint_3d'"):
        score("dexycb", folder, tmp_path / "pred.txt", "s1_test")


def test_bad_npz_files_are_sentences(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((4, 3)), objects=np.array([{}], dtype=object))
    for field, row, sentence in (
        ("y", (3,), "has no array 'y'; it holds objects, x"),
        ("x", (2,), r"x has shape \(4, 3\), expected \(N, 2\)"),
        ("objects", (), "objects holds Python objects, which are not unpickled"),
    ):
        with pytest.raises(ScoreError, match=sentence):
            Npz(path).read(field, *row)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(ScoreError, match=r"not an \.npz file"):
        Npz(path).read("x", 3)
    path.write_bytes(whole.replace(b"\0" * 40, b"\1" * 40, 1))
    with pytest.raises(ScoreError, match="damaged"):
        Npz(path).read("x", 3)
    with pytest.raises(ScoreError, match="benchmark 'kitti' not known; known are freihand, ho3d"):
        score("kitti", path, path)


def test_npz_rows_come_in_pieces_whatever_the_layout(tmp_path: Path) -> None:
    values = np.arange(30.0).reshape(10, 3)
    np.savez(tmp_path / "a.npz", c=values, f=np.asfortranarray(values), empty=np.zeros((0, 3)))
    file = Npz(tmp_path / "a.npz")
    assert [len(part) for part in file.rows("c", 3, at_once=4)] == [4, 4, 2]
    for field in ("c", "f"):
        np.testing.assert_array_equal(file.read(field, None), values)
    assert file.read("empty", 3).shape == (0, 3)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_json_is_read_in_pieces_however_the_blocks_fall(tmp_path: Path, monkeypatch, block: int) -> None:
    monkeypatch.setattr("maskhand.evaluation.scoring.json_lists._BLOCK", block)
    a, b = np.random.default_rng(0).normal(size=(5, 2, 3)), np.random.default_rng(1).normal(size=(4, 3, 3))
    (tmp_path / "x.json").write_text(" " + json.dumps([a.tolist(), b.tolist()], indent=1) + "\n")
    pieces = list(read_samples(tmp_path / "x.json", 2, a=2, b=None))
    assert [(p.section, p.first, len(p.values)) for p in pieces] == [
        (0, 0, 2),
        (0, 2, 2),
        (0, 4, 1),
        (1, 0, 2),
        (1, 2, 2),
    ]
    np.testing.assert_array_equal(np.concatenate([p.values for p in pieces if not p.section]), a)
    np.testing.assert_array_equal(np.concatenate([p.values for p in pieces if p.section]), b)


def test_any_split_over_workers_gives_the_same_bits() -> None:
    from maskhand.evaluation.scoring import mesh

    truth, guess = hands(60, 40, 5)
    whole = mesh.measure_meshes(guess, truth)
    for workers, cut in ((1, 60), (2, 7), (3, 1)):
        pieces = [(guess[k : k + cut], truth[k : k + cut]) for k in range(0, 60, cut)]
        split = total(reversed(pieces), lambda piece: mesh.measure_meshes(*piece), workers)
        assert split is not None
        for part in ("raw", "aligned"):
            one, other = getattr(whole, part), getattr(split, part)
            assert one.mean == other.mean and one.area == other.area
            np.testing.assert_array_equal(one.means, other.means)
        np.testing.assert_array_equal(whole.f.values, split.f.values)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 29))
def test_order_and_split_change_no_bit_of_dexycb_and_interhand(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(30)
    truth = rng.normal(0, 60, (30, 42, 3))
    guess = truth + rng.normal(0, 8, truth.shape)
    valid, interacting = rng.random((30, 42)) < 0.8, rng.random(30) < 0.5

    def numbers(*parts: np.ndarray) -> list[np.ndarray]:
        pair = [interhand.measure(guess[p], truth[p], valid[p], interacting[p]) for p in parts]
        frames = [dexycb.measure(guess[p, :21], truth[p, :21]) for p in parts]
        both, of_frames = (reduce(add, found) for found in (pair, frames))
        errors = (of_frames.absolute, of_frames.root_relative, of_frames.aligned)
        means = (both.single, both.interacting, both.wrists)
        return [m.values for m in means] + [e.means for e in errors] + [e.areas for e in errors]

    for one, other in zip(numbers(np.arange(30)), numbers(order[:cut], order[cut:]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_gt_is_named_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer, joint_cam_mm=np.zeros((2, 42, 3)), joint_valid=np.ones((2, 42)), hand_type=np.array(["both", "left"])
    )
    (tmp_path / "gt.npz").write_bytes(buffer.getvalue())
    with pytest.raises(ScoreError, match="hand_type holds 'both', expected right, left, interacting"):
        score("interhand", tmp_path / "gt.npz", tmp_path / "gt.npz")
