"""Files that `maskhand score` reads: in pieces, whatever their form, and every damage as a sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskhand.adapters.base import RawDataError
from maskhand.scoring import dexycb, interhand
from maskhand.scoring.benchmarks import score_files as score
from maskhand.scoring.formats import FormatError
from maskhand.scoring.io.json_lists import read_samples
from maskhand.scoring.io.npz import Npz
from maskhand.scoring.io.stream import total
from maskhand.scoring.scores import ScoreError, Scores
from support.published_layouts import dexycb as published
from support.scoring_parts import hands, hint_files, interhand_files, write_json


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
        (None, "pred.json: there is no such file; check the path"),
        ("", "pred.json: this file is empty: write it again"),
        ('{"xyz": []}', "expected JSON lists of numbers, found an object with named fields ({\"xyz\": []} ...)"),
        (json.dumps([XYZ]), "[xyz, verts]: expected 2 lists of samples, found 1"),
        (json.dumps([XYZ, VERTS, VERTS]), "more than 2 lists of samples"),
        (json.dumps([XYZ, VERTS]) + "\n[1]", "found b'1' outside of them"),
        (json.dumps([XYZ, "x", VERTS]), "found b'\"x\"' outside of them"),
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
        (f"0,{good}\n1,2,3\n", "line 2 has 3 values between commas, expected 64"),
        (f"0,{good}\n1.5,{good}\n", "line 2 starts with '1.5', expected an image id"),
        (f"0,{good}\n1,{good.replace('0.5', 'a', 1)}\n", "line 2: 'a' is no number"),
        ("", "this file is empty"),
    ):
        pred.write_text(text)
        with pytest.raises(ScoreError, match=sentence):
            score("dexycb", gt, pred)
    pred.write_text(f"0,{good}\n")
    np.savez(gt, image_id=np.arange(3), joint_3d_m=np.zeros((2, 21, 3)))
    with pytest.raises(ScoreError, match="joint_3d_m has 2 rows, image_id 3"):
        score("dexycb", gt, pred)


def packed(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in (name, f"__MACOSX/._{name}", f"._{name}", ".DS_Store"):
            archive.writestr(member, content if member == name else b"\0\5\26\7")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("pack", "sentence"),
    [
        (lambda data: packed("PRED.json", data), None),
        (lambda data: packed("results.TXT", data), None),
        (gzip.compress, None),
        (lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), None),
        (lambda data: data.decode().encode("utf-16"), "text in UTF-16"),
        (bz2.compress, r"a \.bz2 archive: unpack it"),
        (lambda data: gzip.compress(b"".join([b"pred", bytes(253), b"ustar"])), r"in this \.gz is a \.tar archive"),
        (lambda data: packed("pred.zip", packed("pred.json", data)), r"in this \.zip, found pred\.zip"),
        (lambda data: packed("pred.json", data)[:200], "is damaged"),
        (lambda data: b"<html>", "a web page"),
        (lambda data: b" \n\n", "this file is empty"),
        (pickle.dumps, "a Python pickle"),
    ],
)
def test_predictions_as_people_pack_them(tmp_path: Path, pack: Callable[[bytes], bytes], sentence: str | None) -> None:
    """As the servers take them, as macOS packs them, as Windows saves them; everything else is called by its name."""
    truth, points = hands(8, 21, 0)
    write_json(tmp_path / "evaluation_xyz.json", truth.tolist())
    np.savez(tmp_path / "gt.npz", image_id=np.arange(8), joint_3d_m=truth)
    lines = "\n".join(",".join(map(str, [k, *hand.ravel() * 1000])) for k, hand in enumerate(points))
    for name, gt, content in (
        ("freihand", tmp_path, json.dumps([points.tolist(), []])),
        ("dexycb", tmp_path / "gt.npz", lines + "\n"),
    ):
        pred = tmp_path / f"{name}.pred"
        pred.write_bytes(content.encode())
        plain = score(name, gt, pred).to_json()
        data = pack(content.encode())
        if sentence is None and data.startswith(b"PK") and (b"TXT" in data) != (name == "dexycb"):
            continue
        pred.write_bytes(data)
        if sentence is None:
            assert score(name, gt, pred).to_json() == plain
        else:
            with pytest.raises(ScoreError, match=sentence) as error:
                score(name, gt, pred)
            assert str(pred) in str(error.value)


@pytest.mark.parametrize("name", ["freihand", "dexycb", "hint", "interhand"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "evaluation_xyz.json", hands(8, 21, 0)[0].tolist())
    np.savez(tmp_path / "gt.npz", image_id=np.arange(8), joint_3d_m=hands(8, 21, 0)[0])
    hint_files(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    gt = {"freihand": tmp_path, "dexycb": tmp_path / "gt.npz", "hint": tmp_path, "interhand": tmp_path / "pipe"}[name]
    with pytest.raises(ScoreError, match="pipe: this is a pipe or a device, expected a file"):
        score(name, gt, tmp_path / "pipe")


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
    with pytest.raises(ScoreError, match=r"labels_000001.npz: expected 'joint_3d' among the fields"):
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
    with pytest.raises(FormatError, match="format 'kitti' not known; known are freihand, ho3d"):
        score("kitti", path, path)


@pytest.mark.parametrize(
    ("benchmark", "file", "changes", "sentence"),
    [
        ("interhand", "pred", {"joint_cam_mm": np.full((40, 42, 3), "1.0")}, "joint_cam_mm holds values of type <U3"),
        ("interhand", "gt", {"joint_valid": np.full((40, 42), "0")}, "joint_valid holds values of type <U1"),
        ("interhand", "gt", {"joint_cam_mm": np.float64(1)}, "joint_cam_mm is a single value, expected an array"),
        ("hint", "TEST_newdays_img_vis", {"scale": np.zeros(30)}, "scale of sample 0 is a box of 0 px"),
        ("dexycb", "gt", {"image_id": np.array([4, 5, 4])}, "image_id 4 is there twice"),
        ("dexycb", "gt", {"image_id": np.array([4, 5.5, 6])}, "image_id 5.5 is not a whole number"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_sentences(
    tmp_path: Path, benchmark: str, file: str, changes: dict[str, np.ndarray], sentence: str
) -> None:
    gt, pred = tmp_path / "gt.npz", tmp_path / "pred.npz"
    if benchmark == "interhand":
        interhand_files(tmp_path)
    elif benchmark == "hint":
        hint_files(tmp_path)
        gt = tmp_path / "TEST_newdays_img"
    else:
        pred = tmp_path / "pred.txt"
        pred.write_text("\n".join(f"{k}," + ",".join(["1.0"] * 63) for k in (4, 5, 6)))
        np.savez(gt, image_id=np.array([4, 5, 6]), joint_3d_m=np.ones((3, 21, 3)))
    path = tmp_path / f"{file}.npz"
    with np.load(path, allow_pickle=True) as arrays:
        changed = dict(arrays) | changes
    np.savez(path, **changed)
    with pytest.raises(ScoreError, match=sentence) as error:
        score(benchmark, gt, pred, "s0_test")
    assert str(path) in str(error.value)


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
    monkeypatch.setattr("maskhand.scoring.io.json_lists._BLOCK", block)
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
    from maskhand.scoring import freihand_ho3d as mesh

    truth, guess = hands(60, 40, 5)
    whole = mesh.mesh_errors(guess, truth)
    for workers, cut in ((1, 60), (2, 7), (3, 1)):
        pieces = [(guess[k : k + cut], truth[k : k + cut]) for k in range(0, 60, cut)]
        split = total(reversed(pieces), lambda piece: mesh.mesh_errors(*piece), workers)
        assert split is not None
        for part in ("raw", "aligned"):
            one, other = getattr(whole, part), getattr(split, part)
            assert one.mean == other.mean and one.pck_auc == other.pck_auc
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
        pair = [interhand.joint_errors(guess[p], truth[p], valid[p], interacting[p]) for p in parts]
        frames = [dexycb.joint_errors(guess[p, :21], truth[p, :21]) for p in parts]
        both, of_frames = (reduce(add, found) for found in (pair, frames))
        errors = (of_frames.absolute, of_frames.root_relative, of_frames.aligned)
        means = (both.single, both.interacting, both.wrists)
        return [m.values for m in means] + [e.means for e in errors] + [e.pck_auc_by_point for e in errors]

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
