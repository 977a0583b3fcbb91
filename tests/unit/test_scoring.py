"""`maskhand score` on files in the official formats, against literal twins of the official programs."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from maskhand.cli import app
from maskhand.scoring.benchmarks import score_files as score
from maskhand.scoring.formats import FORMATS
from maskhand.scoring.scores import ScoreError
from maskhand.storage import StorageError, write_bytes_atomic
from support import official_twins as twins
from support.scoring_parts import hands, hint_files, interhand_files, write_json

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
    with pytest.raises(ScoreError, match=r"pred\.zip: the \.zip or \.gz is damaged"):
        score("freihand", folder, sent)
    with zipfile.ZipFile(sent, "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ScoreError, match=r"expected one \.json or a pred\.json in this \.zip, found a\.json, b\.json"):
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


@pytest.mark.parametrize("place", ["pred.json", "link.json", "folder", "pipe", "s3:/bucket/x.json"])
def test_a_place_where_no_result_can_be_is_refused_before_scoring(mesh_files, place: str) -> None:
    """The predictions themselves among them."""
    folder, _ = mesh_files
    (folder / "link.json").symlink_to("pred.json")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    before = (folder / "pred.json").read_bytes()
    out = place if ":" in place else str(folder / place)
    run = CliRunner().invoke(
        app, ["score", "freihand", "--gt", str(folder), "--pred", str(folder / "pred.json"), "--json", out]
    )
    assert isinstance(run.exception, StorageError) and out in str(run.exception) and "mpjpe_mm" not in run.output
    assert (folder / "pred.json").read_bytes() == before and stat.S_ISFIFO((folder / "pipe").stat().st_mode)
    with pytest.raises(StorageError, match="pipe: this is a pipe or a device"):
        write_bytes_atomic(folder / "pipe", b"x")


def test_headline_keys_of_the_others(tmp_path: Path) -> None:
    hint_files(tmp_path)
    metrics = score("hint", tmp_path, tmp_path / "pred.npz").metrics
    assert set(metrics) == HEADLINES["hint"] | {f"epe_{s}_px" for s in ("all", "visible", "occluded")}
    assert set(HEADLINES) == set(FORMATS)
    assert f"[{'|'.join(FORMATS)}]" in CliRunner().invoke(app, ["score", "--help"], terminal_width=200).output
