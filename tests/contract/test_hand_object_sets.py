"""What is particular to HO-3D, H2O-3D, DexYCB and RHD: their traps, and the parts of their files that may be absent."""

from __future__ import annotations

import json
import pickletools
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import RawDataError, open_adapter, present_splits, read_hand
from maskhand.adapters.layouts.dexycb_splits import SELECTIONS, SERIALS
from maskhand.annotate.mano_targets import annotate_mano
from maskhand.conventions import FINGERTIP_VERTICES
from maskhand.sample import HandSample, SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.reader import ShardSet
from support.published_layouts import Fixture, dexycb, ho3d, rhd
from support.published_layouts.hands import licensed_folder

TIPS = [4, 8, 12, 16, 20]


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def _write(folder: Path, name: str, split: str, count: int = 8, **how) -> Fixture:
    writer = {"ho3d": ho3d.write, "dexycb": dexycb.write, "rhd": rhd.write}[catalog.load_spec(name).layout]
    return writer(folder / "raw", catalog.load_spec(name), split, count, **how)


def _read(fixture: Fixture, name: str, split: str) -> dict[str, HandSample | SampleError]:
    adapter = open_adapter(catalog.load_spec(name), str(fixture.raw_dir), split)
    plan, found = adapter.plan(), {}
    for position, key in enumerate(plan.keys):
        try:
            found[key] = read_hand(adapter, plan.item(position))
        except SampleError as error:
            found[key] = error
    return found


def _samples(fixture: Fixture, name: str, split: str) -> dict[str, HandSample]:
    return {k: s for k, s in _read(fixture, name, split).items() if isinstance(s, HandSample)}


@pytest.mark.parametrize(
    ("name", "split"), [("ho3d_v2", "train"), ("ho3d_v3", "train"), ("h2o3d", "train"), ("dexycb", "s1_test")]
)
def test_annotated_fingertips_are_the_vertices_that_the_card_names(tmp_path: Path, name: str, split: str) -> None:
    spec, fixture = catalog.load_spec(name), _write(tmp_path, name, split)
    samples = _samples(fixture, name, split)
    assert {s.side for s in samples.values()} == ({"right", "left"} if spec.handedness == "both" else {"right"})
    for key, sample in samples.items():
        tips = FINGERTIP_VERTICES[str(spec.fingertip_vertices_of(sample.side))]
        assert sample.joints_cam_m is not None
        np.testing.assert_allclose(sample.joints_cam_m[TIPS], fixture.truths[key].vertices_cam_m[list(tips)], atol=1e-6)


@pytest.mark.parametrize(("name", "split"), [("ho3d_v3", "train"), ("h2o3d", "train"), ("dexycb", "s1_test")])
def test_posed_parameters_meet_the_annotated_joints(tmp_path: Path, name: str, split: str) -> None:
    """Pose, shape, translation, joint order, axes and fingertips at once, through shards and the target annotator."""
    fixture, shards = _write(tmp_path, name, split), str(tmp_path / "shards")
    build_shards(catalog.load_spec(name), str(fixture.raw_dir), split, shards)
    annotate_mano(shards)
    rows = [row for row in ShardSet.open(shards, ("mano",)) if row.sample.side == "right"]
    targets = [row.mano_target() for row in rows]
    assert len(targets) >= 7 and all(target is not None for target in targets)
    assert all(target.source == "annotated" and target.residual_mm < 0.01 for target in targets if target)


@pytest.mark.parametrize("name", ["ho3d_v2", "ho3d_v3"])
def test_ho3d_evaluation_has_a_wrist_and_a_box(tmp_path: Path, name: str) -> None:
    fixture = _write(tmp_path, name, "evaluation")
    for key, sample in _samples(fixture, name, "evaluation").items():
        assert sample.joints_3d_valid is not None and sample.joints_3d_valid.tolist() == [True] + [False] * 20
        assert sample.vertices_cam_m is None and sample.mano is None
        assert sample.box_xyxy_px.tolist() == fixture.truths[key].box_xyxy_px.tolist()  # type: ignore[union-attr]


def test_ho3d_evaluation_with_the_released_truth_is_complete(tmp_path: Path) -> None:
    fixture = _write(tmp_path, "ho3d_v2", "evaluation", released=True)
    samples = _samples(fixture, "ho3d_v2", "evaluation")
    assert list(samples) == list(fixture.truths)
    for index, (key, sample) in enumerate(samples.items()):
        truth = fixture.truths[key]
        assert sample.joints_3d_valid is not None and sample.joints_3d_valid.all()
        np.testing.assert_allclose(sample.joints_cam_m, truth.joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(sample.vertices_cam_m, truth.vertices_cam_m, atol=1e-6)
        assert sample.origin["index"] == index, "the place in evaluation.txt, by which predictions are handed in"


@pytest.mark.parametrize("name", ["xyz", "verts"])
def test_a_bad_row_of_the_released_truth_costs_its_sample(tmp_path: Path, name: str) -> None:
    fixture = _write(tmp_path, "ho3d_v2", "evaluation", released=True)
    path = fixture.raw_dir / f"evaluation_{name}.json"
    rows = json.loads(path.read_text())
    rows[2][5][0], rows[4] = float("nan"), rows[4][:10]
    rows[6][0] = "x"
    rows[7] = [[1, 2, 3], [1, 2]]
    path.write_text(json.dumps(rows))
    found = _read(fixture, "ho3d_v2", "evaluation")
    keys = list(fixture.truths)
    reasons = {key: error.reason for key, error in found.items() if isinstance(error, SampleError)}
    assert reasons == {keys[2]: "not_finite"} | dict.fromkeys((keys[4], keys[6], keys[7]), "wrong_shape")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], r"evaluation_xyz.json: not valid JSON .*probably cut, copy it again"),
        (lambda text: "[" + text[1:].split("]], ", 1)[1], r"has 7 entries, evaluation.txt lists 8 frames"),
        (lambda text: "{}", r"expected a list"),
    ],
)
def test_a_released_list_that_does_not_fit_is_one_sentence(tmp_path: Path, damage, message: str) -> None:
    fixture = _write(tmp_path, "ho3d_v2", "evaluation", released=True)
    path = fixture.raw_dir / "evaluation_xyz.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RawDataError, match=message):
        _read(fixture, "ho3d_v2", "evaluation")


def test_ho3d_images_are_png_in_version_2_and_jpeg_in_version_3(tmp_path: Path) -> None:
    formats = {}
    for name in ("ho3d_v2", "ho3d_v3"):
        fixture = _write(tmp_path / name, name, "train")
        formats[name] = {s.image_format for s in _samples(fixture, name, "train").values()}
    assert formats == {"ho3d_v2": {"png"}, "ho3d_v3": {"jpg"}}


@pytest.mark.parametrize(("lines", "message"), [("", "list of annotated frames is empty"), ("../x/0001", "line 1 is")])
def test_a_list_of_frames_that_is_none(tmp_path: Path, lines: str, message: str) -> None:
    fixture = _write(tmp_path, "ho3d_v3", "train")
    (fixture.raw_dir / "train.txt").write_text(lines)
    with pytest.raises(RawDataError, match=message):
        _read(fixture, "ho3d_v3", "train")


def test_the_fixtures_labels_are_pickles_of_python_2(tmp_path: Path) -> None:
    """No unicode text, no opcode after protocol 2, arrays under numpy's old module name and as raw text."""
    fixture = _write(tmp_path, "ho3d_v3", "train", 1)
    operations = [
        (o.name, o.proto, argument) for o, argument, _ in pickletools.genops(fixture.joints_file.read_bytes())
    ]
    assert max(proto for _, proto, _ in operations) == 2
    assert not {name for name, _, _ in operations if "UNICODE" in name or "BYTES" in name}
    assert "numpy.core.multiarray _reconstruct" in {argument for name, _, argument in operations if name == "GLOBAL"}


def test_dexycb_splits_are_the_toolkits() -> None:
    """Brute force over every subject, camera and sequence, by the paper's words."""
    seen: dict[str, set[tuple[int, int, int]]] = {split: set() for split in SELECTIONS}
    for subject, camera, sequence in product(range(10), range(8), range(100)):
        cell, last, thing = (subject, camera, sequence), sequence % 5 == 4, sequence // 5
        seen["s0_train" if not last else "s0_val" if subject < 2 else "s0_test"].add(cell)
        seen[{6: "s1_val", 7: "s1_test", 8: "s1_test"}.get(subject, "s1_train")].add(cell)
        seen[{6: "s2_val", 7: "s2_test"}.get(camera, "s2_train")].add(cell)
        seen["s3_val" if thing in (3, 19) else "s3_test" if thing in (7, 11, 15) else "s3_train"].add(cell)
    for split, selection in SELECTIONS.items():
        assert set(product(selection.subjects, selection.cameras, selection.sequences)) == seen[split], split
    assert set(SELECTIONS) == set(catalog.load_spec("dexycb").splits)
    assert sorted(SERIALS) == list(SERIALS), "cameras are counted in the order of their numbers"


def test_dexycb_images_without_a_hand_are_counted(tmp_path: Path) -> None:
    fixture = _write(tmp_path, "dexycb", "s0_test")
    manifest = build_shards(catalog.load_spec("dexycb"), str(fixture.raw_dir), "s0_test", str(tmp_path / "shards"))
    assert manifest.rejects == {"no_hand": 1}
    assert manifest.planned == manifest.count + 1 == len(fixture.truths) + 1
    assert {row.sample.key for row in ShardSet.open(str(tmp_path / "shards"))} == set(fixture.truths)


def test_dexycb_notes_absent_subjects_and_refuses_incomplete_ones(tmp_path: Path) -> None:
    fixture = _write(tmp_path, "dexycb", "s0_test")
    spec = catalog.load_spec("dexycb")
    notes = open_adapter(spec, str(fixture.raw_dir), "s0_test").plan().notes
    assert any("subjects 04, 05, 06, 07, 08, 09, 10 of s0_test are absent" in note for note in notes)
    origins = [s.origin for s in _samples(fixture, "dexycb", "s0_test").values()]
    assert {origin["index"] for origin in origins} == {None}, "no official index can be known"
    sequence = next(p for p in sorted(fixture.raw_dir.glob("*-subject-03/*")) if not list(p.glob("*/*.npz")))
    (sequence / "meta.yml").unlink()
    sequence.rmdir()
    with pytest.raises(RawDataError, match=r"holds 99 sequences; s0_test chooses them by their place among all 100"):
        open_adapter(spec, str(fixture.raw_dir), "s0_test").plan()
    assert len(open_adapter(spec, str(fixture.raw_dir), "s2_val").plan().keys) == 3, "cameras need no complete subject"


def test_dexycb_without_a_split_is_built_once(tmp_path: Path) -> None:
    """Of the four ways to divide the same images the card names one."""
    fixture, spec = _write(tmp_path, "dexycb", "s0_test"), catalog.load_spec("dexycb")
    root = str(fixture.raw_dir)
    every = [split for split in spec.splits if open_adapter(spec, root, split).present()]
    assert {"s0_train", "s0_test", "s1_train", "s2_train", "s3_train"} <= set(every)
    assert present_splits(spec, root) == ["s0_train", "s0_test"]
    assert present_splits(spec.model_copy(update={"default_splits": ()}), root) == every


def test_dexycb_splits_without_a_folder_of_frames_are_not_there(tmp_path: Path) -> None:
    fixture, spec = _write(tmp_path, "dexycb", "s1_val"), catalog.load_spec("dexycb")

    def present() -> set[str]:
        return {split for split in spec.splits if open_adapter(spec, str(fixture.raw_dir), split).present()}

    assert {"s1_val", "s2_val", "s2_test"} <= present() and not present() & {"s0_val", "s1_train", "s1_test"}
    for folder in fixture.raw_dir.glob(f"*-subject-07/*/{SERIALS[7]}"):
        shutil.rmtree(folder)
    assert "s2_val" in present() and "s2_test" not in present(), "no frames of its camera"
    for folder in fixture.raw_dir.glob("*-subject-07/*/*/"):
        shutil.rmtree(folder)
    assert not present()
    with pytest.raises(RawDataError, match=r"none of dexycb's splits .* is here"):
        present_splits(spec, str(fixture.raw_dir))
    for meta in fixture.raw_dir.rglob("meta.yml"):
        meta.write_text(re.sub(r"num_frames: \d+", "num_frames: 0", meta.read_text()))
    with pytest.raises(RawDataError, match="frames of the subjects of s1_val not found; see how_to_get"):
        open_adapter(spec, str(fixture.raw_dir), "s1_val").plan()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("meta.yml", "num_frames: many\nmano_sides: [right]\nmano_calib: [x]\n", "num_frames is 'many'"),
        ("meta.yml", "num_frames: 1\nmano_sides: [both]\nmano_calib: [x]\n", r"mano_sides\[0\] is 'both'"),
        ("meta.yml", "num_frames: 1\n", r"expected num_frames, mano_sides and mano_calib .*mano_sides"),
        ("meta.yml", "num_frames: [1\n", "not usable YAML"),
        ("meta.yml", "a: !!python/object/apply:os.system [true]\n", "not usable YAML .*python/object"),
        ("meta.yml", "", "expected a mapping of names, found NoneType"),
        ("836212060125_640x480.yml", "depth: {}\n", r"expected color: fx, fy, ppx, ppy as numbers .*'color'"),
    ],
)
def test_dexycb_yaml_that_cannot_be_used_is_one_sentence(tmp_path: Path, file: str, text: str, message: str) -> None:
    fixture = _write(tmp_path, "dexycb", "s1_val")
    path = next(fixture.raw_dir.rglob(file))
    path.write_text(text)
    with pytest.raises(RawDataError, match=message) as error:
        open_adapter(catalog.load_spec("dexycb"), str(fixture.raw_dir), "s1_val").plan()
    assert str(path) in str(error.value)


def test_rhd_keeps_hidden_joints_apart(tmp_path: Path) -> None:
    fixture = _write(tmp_path, "rhd", "evaluation")
    samples = _samples(fixture, "rhd", "evaluation")
    first = samples["evaluation-00000-l"]
    assert first.joints_2d_conf is not None and first.joints_2d_px is not None and first.joints_3d_valid is not None
    assert np.flatnonzero(first.joints_2d_conf == 0).tolist() == [4, 15], "thumb's tip and the ring finger's DIP"
    assert first.joints_3d_valid.all() and (first.joints_2d_px != 0).all()
    assert first.origin == {"image": 0, "hand": "left"}
    assert {s.side for s in samples.values()} == {"right", "left"} and len(samples) >= 8


@pytest.mark.parametrize(
    ("name", "split", "keys"),
    [
        ("ho3d_v2", "train", {"index", "sequence", "frame"}),
        ("h2o3d", "evaluation", {"index", "sequence", "frame"}),
        ("dexycb", "s3_val", {"index", "subject", "sequence", "sequence_place", "camera", "frame"}),
    ],
)
def test_origins_lead_back_to_the_files(tmp_path: Path, name: str, split: str, keys: set[str]) -> None:
    fixture = _write(tmp_path, name, split)
    for key, sample in _samples(fixture, name, split).items():
        assert set(sample.origin) == keys
        path = fixture.truths[key].image_path.as_posix()
        assert all(str(sample.origin[name]) in path for name in keys & {"sequence", "camera", "frame"})
