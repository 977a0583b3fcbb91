"""One contract for every dataset of the catalog: a card and a layout writer are all that a new one brings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import Adapter, RawDataError, layout_of, open_adapter, present_splits, read_hand
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT
from maskhand.sample import HandSample, SampleError
from support.published_layouts import WRITERS, Fixture, Truth
from support.published_layouts.hands import edit_json, licensed_folder, pose_hand

NAMES = [name for name in catalog.names() if not catalog.load_spec(name).layout.startswith("hamer_")]
"""HaMeR's tars and npz have no image or label file per sample; `test_hamer.py` holds them to the same contract."""
SPLITS = [(name, split) for name in NAMES for split in catalog.load_spec(name).splits]
LABELLED = [name for name in NAMES if catalog.load_spec(name).joint_order is not None]
"""Without joints there is no label file that could be broken."""
HANDS = 8
"""A fixture of every layout holds at least as many."""
COUNTS = {"asl_alphabet": 20, "coco_wholebody": 3, "halpe": 3, "hand143": 4, "hand_labels": 4, "hint": 4, "mtc": 3}
COUNTS |= {"interhand26m": 6, "rhd": 6}
"""What a writer must be asked for to make that many, where it is not their number itself."""


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def _write(folder: Path, name: str, split: str, count: int | None = None, **how) -> tuple[Fixture, Adapter]:
    spec = catalog.load_spec(name)
    fixture = WRITERS[spec.layout](folder / "raw", spec, split, count or COUNTS.get(spec.layout, HANDS), **how)
    return fixture, open_adapter(spec, str(fixture.raw_dir), split)


def _read_all(adapter: Adapter) -> dict[str, HandSample | SampleError]:
    plan = adapter.plan()
    found: dict[str, HandSample | SampleError] = {}
    for position, key in enumerate(plan.keys):
        try:
            found[key] = read_hand(adapter, plan.item(position))
        except SampleError as error:
            found[key] = error
    return found


def _samples(fixture: Fixture, adapter: Adapter) -> dict[str, HandSample]:
    """Every hand of the fixture; those that must be rejected are, for their reasons."""
    found = _read_all(adapter)
    assert _reasons(found) == fixture.rejects
    return {key: sample for key, sample in found.items() if isinstance(sample, HandSample)}


def _reasons(found: dict[str, HandSample | SampleError]) -> dict[str, str]:
    return {key: sample.reason for key, sample in found.items() if isinstance(sample, SampleError)}


def test_every_card_has_an_adapter_and_a_fixture() -> None:
    specs = [catalog.load_spec(name) for name in catalog.names()]
    assert {spec.layout for spec in specs} <= set(WRITERS)
    assert all(callable(layout_of(spec)) for spec in specs)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_reads_every_hand_as_it_was_made(tmp_path: Path, name: str, split: str) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    found = _samples(fixture, adapter)
    assert list(found) == list(fixture.truths), "keys, in the official order"
    assert len(found) >= HANDS
    for key, truth in fixture.truths.items():
        sample = found[key]
        assert (sample.dataset, sample.side) == (name, truth.side)
        assert sample.image == truth.image_path.read_bytes(), "images are copied byte for byte"
        assert truth.origin.items() <= sample.origin.items()
        _check_3d(sample, truth)
        _check_2d(sample, truth)


def _check_3d(sample: HandSample, truth: Truth) -> None:
    """Within 0.001 mm; what is not annotated is None."""
    assert (sample.joints_cam_m is None) == (sample.joints_3d_valid is None) == (truth.joints_cam_m is None)
    if truth.K_px is not None:
        assert sample.camera is not None
        np.testing.assert_allclose(sample.camera.K_px, truth.K_px, atol=1e-9)
    if truth.joints_cam_m is None:
        assert sample.vertices_cam_m is None and sample.camera is None
        return
    np.testing.assert_array_equal(sample.joints_3d_valid, truth.valid)
    np.testing.assert_allclose(sample.joints_cam_m[truth.valid], truth.joints_cam_m[truth.valid], atol=1e-6)
    if sample.vertices_cam_m is not None:
        np.testing.assert_allclose(sample.vertices_cam_m, truth.vertices_cam_m, atol=1e-6)


def _check_2d(sample: HandSample, truth: Truth) -> None:
    """Within 0.001 pixels; the box is tight around the joints where the dataset has no other."""
    points, box = truth.points_px(), truth.box_xyxy_px
    if points is None:
        assert sample.joints_2d_px is None and sample.joints_2d_conf is None
    else:
        points = points[truth.valid]
        assert sample.joints_2d_px is not None
        np.testing.assert_allclose(sample.joints_2d_px[truth.valid], points, atol=1e-3)
        visible = truth.valid if truth.visible is None else truth.visible
        np.testing.assert_array_equal(sample.joints_2d_conf, visible.astype(np.float32))
        box = [*points.min(0), *points.max(0)] if box is None else box
    np.testing.assert_allclose(sample.box_xyxy_px, box, atol=1e-3)
    np.testing.assert_array_equal(sample.joints_2d_occluded, truth.occluded)


def _stores_mano(name: str, split: str) -> bool:
    """HO-3D's evaluation labels have no parameters."""
    spec = catalog.load_spec(name)
    return spec.mano is not None and (spec.layout, split) != ("ho3d", "evaluation")


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_mano_parameters_give_back_the_mesh(tmp_path: Path, name: str, split: str) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    for key, sample in _samples(fixture, adapter).items():
        stored = _stores_mano(name, split) and fixture.truths[key].mano
        assert (sample.mano is not None) == stored
        if sample.mano is None:
            continue
        pose, betas, transl = sample.mano.pose_aa, sample.mano.betas, sample.mano.transl_cam_m
        truth = fixture.truths[key]
        # A left hand's parameters are those of the mirrored right-hand model, so mirroring them makes a right hand.
        mirror = truth.side == "left"
        mesh = pose_hand(
            "right",
            (pose * MIRROR_AXIS_ANGLE if mirror else pose)[0],
            (pose * MIRROR_AXIS_ANGLE if mirror else pose)[1:],
            betas,
            transl * MIRROR_POINT if mirror else transl,
        )
        vertices = mesh.vertices_m * MIRROR_POINT if mirror else mesh.vertices_m
        np.testing.assert_allclose(vertices, truth.vertices_cam_m, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bad_files_cost_only_their_own_samples(tmp_path: Path, name: str) -> None:
    split = next(iter(catalog.load_spec(name).splits))
    fixture, adapter = _write(tmp_path, name, split)
    paths = list(dict.fromkeys(truth.image_path for truth in fixture.truths.values()))
    whole = paths[1].read_bytes()
    paths[0].unlink()
    paths[1].write_bytes(whole[: len(whole) // 2])
    paths[2].write_bytes(b"<html>not found</html>")
    expected = dict(zip(paths[:3], ("missing_image", "cut_image", "bad_image"), strict=True))
    if name not in LABELLED:
        # Where the images are all that is published, one that is not there is not planned either.
        expected.pop(paths[0])
    hit = {key: expected[truth.image_path] for key, truth in fixture.truths.items() if truth.image_path in expected}
    assert _reasons(_read_all(adapter)) == fixture.rejects | hit


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("value", "reason"), [([[float("nan")] * 3] * 21, "not_finite"), ([[0.1, 0.2]] * 7, "wrong_shape")]
)
def test_bad_labels_cost_only_their_own_samples(tmp_path: Path, name: str, value: list, reason: str) -> None:
    split = next(iter(catalog.load_spec(name).splits))
    fixture, adapter = _write(tmp_path, name, split)
    last = len(fixture.truths) - 1
    rows = 42 if catalog.load_spec(name).handedness == "both" else 21
    fixture.damage_joints(last, value * (rows // 21) if reason == "not_finite" else value)
    damaged = list(fixture.truths.values())[last]
    touched = {key: reason for key, truth in fixture.truths.items() if truth.shares_label(damaged)}
    found = _read_all(adapter)
    assert _reasons(found) == fixture.rejects | touched
    for key in touched:
        sentence = str(found[key])
        assert sentence.startswith(f"{key}: ") and str(fixture.joints_file) in sentence and "expected" in sentence


@pytest.mark.parametrize("name", LABELLED)
def test_a_cut_label_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    split = next(iter(catalog.load_spec(name).splits))
    fixture, adapter = _write(tmp_path, name, split)
    data = fixture.joints_file.read_bytes()
    fixture.joints_file.write_bytes(data[: len(data) // 2])
    if fixture.file_per_sample:
        last = list(fixture.truths.values())[-1].image_path
        own = {key: "bad_label" for key, truth in fixture.truths.items() if truth.image_path == last}
        assert _reasons(_read_all(adapter)) == fixture.rejects | own
        return
    with pytest.raises(RawDataError, match=r"not (valid JSON|a readable pickle).*probably cut, copy it again") as error:
        adapter.plan()
    assert str(fixture.joints_file) in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_one_sentence(tmp_path: Path, name: str) -> None:
    spec = catalog.load_spec(name)
    with pytest.raises(RawDataError, match=r"not found; see how_to_get"):
        open_adapter(spec, str(tmp_path), next(iter(spec.splits))).plan()
    with pytest.raises(catalog.CatalogError, match="has no split 'holdout'"):
        open_adapter(spec, str(tmp_path), "holdout")


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_the_splits_that_are_there_are_found(tmp_path: Path, name: str, split: str) -> None:
    with pytest.raises(RawDataError, match="no such folder"):
        present_splits(catalog.load_spec(name), str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RawDataError, match=r"none of .* splits"):
        present_splits(catalog.load_spec(name), str(tmp_path / "empty"))
    fixture, _ = _write(tmp_path, name, split)
    spec = catalog.load_spec(name)
    assert open_adapter(spec, str(fixture.raw_dir), split).present()
    default, here = spec.default_splits or tuple(spec.splits), {split} | fixture.other_splits
    if not here.intersection(default):
        with pytest.raises(RawDataError, match=rf"none of .*default splits .* is here; .*{split}"):
            present_splits(spec, str(fixture.raw_dir))
        return
    found = present_splits(spec, str(fixture.raw_dir))
    assert set(found) <= here.intersection(default) and (split in found or split not in default)


@pytest.mark.parametrize("name", NAMES)
def test_the_source_digest_follows_labels_and_images(tmp_path: Path, name: str) -> None:
    split = next(iter(catalog.load_spec(name).splits))
    fixture, adapter = _write(tmp_path, name, split)
    before = adapter.plan().source_digest
    assert adapter.plan().source_digest == before
    path = next(iter(fixture.truths.values())).image_path
    image = path.read_bytes()
    path.write_bytes(image + b"\0")
    assert adapter.plan().source_digest != before
    path.write_bytes(image)
    if name not in LABELLED:
        assert adapter.plan().source_digest == before
        return
    fixture.damage_joints(0, [[0.0, 0.0, 1.0]] * 21)
    assert adapter.plan().source_digest != before


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_the_licensed_model_need_it(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKHAND_MANO_DIR")
    fixture, adapter = _write(tmp_path, name, next(iter(catalog.load_spec(name).splits)))
    convention = catalog.load_spec(name).mano
    made_with_any = convention is not None and convention.model == "any"
    assert all((s.mano is not None) == made_with_any for s in _samples(fixture, adapter).values())
    needs_it = convention is not None and convention.model == "mano"
    assert any("MASKHAND_MANO_DIR" in note for note in adapter.plan().notes) == needs_it


@pytest.mark.parametrize("how", [{"labels": "separate", "nested": True}, {"labels": "separate"}, {"labels": "beside"}])
def test_freihand_evaluation_labels_in_either_release(tmp_path: Path, how: dict) -> None:
    fixture, adapter = _write(tmp_path, "freihand", "evaluation", **how)
    for key, sample in _read_all(adapter).items():
        assert isinstance(sample, HandSample) and sample.vertices_cam_m is not None
        np.testing.assert_allclose(sample.joints_cam_m, fixture.truths[key].joints_cam_m, atol=1e-6)


def test_freihand_evaluation_without_labels_keeps_images_and_cameras(tmp_path: Path) -> None:
    _, adapter = _write(tmp_path, "freihand", "evaluation", labels="none")
    assert any("evaluation_xyz.json is absent" in note for note in adapter.plan().notes)
    for sample in _read_all(adapter).values():
        assert isinstance(sample, HandSample) and sample.camera is not None
        assert (sample.joints_cam_m, sample.joints_2d_px, sample.vertices_cam_m, sample.mano) == (None,) * 4
        assert sample.box_xyxy_px.tolist() == [0, 0, 224, 224]


def test_freihand_training_has_four_images_per_annotation(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "freihand", "training", 3)
    assert len(adapter.plan().keys) == 4 * 3
    found = _read_all(adapter)
    first, fourth = found["training-00000001"], found["training-00000010"]
    assert isinstance(first, HandSample) and isinstance(fourth, HandSample)
    np.testing.assert_array_equal(first.joints_cam_m, fourth.joints_cam_m)
    assert first.image != fourth.image
    edit_json(fixture.raw_dir / "training_mano.json", lambda entries: entries.pop())
    with pytest.raises(RawDataError, match=r"training_mano.json .* has 2 entries, training_K.json has 3"):
        adapter.plan()


def test_interhand_reads_flat_excerpts_and_drops_hands_without_wrist(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "interhand26m", "test", 3, flat=True)
    whole = _read_all(adapter)
    assert _reasons(whole) == fixture.rejects == {"test-00000071-l": "wrist_not_annotated"}
    assert [key for key in whole if key not in fixture.rejects] == list(fixture.truths)

    def hide_left_wrist(data: dict) -> None:
        data["annotations"][0]["joint_valid"][41] = [0]

    edit_json(fixture.raw_dir / "test_interhand2.6m_data.json", hide_left_wrist)
    without_wrist = fixture.rejects | {"test-00000050-l": "wrist_not_annotated"}
    assert _reasons(_read_all(adapter)) == without_wrist

    edit_json(fixture.raw_dir / "test_interhand2.6m_camera.json", lambda cameras: cameras["1"]["focal"].clear())
    # The last image is of the same capture.
    unseen = dict.fromkeys(("test-00000057-r", "test-00000071-r", "test-00000071-l"), "no_camera")
    assert _reasons(_read_all(adapter)) == without_wrist | unseen


@pytest.mark.parametrize(
    ("name", "split", "file", "damage", "found"),
    [
        ("freihand", "training", "training_K.json", lambda K: K[0].pop(), "K has shape (2, 3), expected (3, 3)"),
        ("freihand", "training", "training_mano.json", lambda all_: all_[0][0].pop(), "mano has shape (1, 60)"),
        ("interhand26m", "test", "InterHand2.6M_test_camera.json", lambda all_: _first(_first(all_)["focal"]).pop(),
         "focal has shape (1,), expected (2,)"),
        ("interhand26m", "test", "InterHand2.6M_test_MANO_NeuralAnnot.json",
         lambda all_: _first(_first(all_))["right"]["pose"].pop(), "pose has shape (47,), expected (48,)"),
        ("interhand26m", "test", "InterHand2.6M_test_data.json",
         lambda all_: all_["annotations"][0]["joint_valid"].pop(), "joint_valid has shape (41, 1), expected (42, 1)"),
    ],
)  # fmt: skip
def test_a_sentence_names_the_one_file_of_several(
    tmp_path: Path, name: str, split: str, file: str, damage: Callable[[Any], Any], found: str
) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    (path,) = fixture.raw_dir.rglob(file)
    edit_json(path, damage)
    sentences = [
        str(s) for key, s in _read_all(adapter).items() if isinstance(s, SampleError) and key in fixture.truths
    ]
    assert sentences and all(f": {path}: {found}" in sentence for sentence in sentences)


def _first(entries: dict[str, Any]) -> Any:
    return next(iter(entries.values()))


def test_units_and_axes_come_from_the_card(tmp_path: Path) -> None:
    """The same files under another card: millimeters and OpenGL axes."""
    fixture, _ = _write(tmp_path, "freihand_synth", "evaluation")
    spec = replace_facts("freihand_synth", units="mm", axes="opengl", mano=None)
    adapter = open_adapter(spec, str(fixture.raw_dir), "evaluation")
    # Such a hand is refused at the door; what matters here is the conversion of the numbers.
    sample = adapter.read(adapter.plan().item(0))
    flipped = fixture.truths[sample.key].joints_cam_m * [0.001, -0.001, -0.001]
    np.testing.assert_allclose(sample.joints_cam_m, flipped, atol=1e-9)


@pytest.mark.parametrize(
    ("facts", "reason", "guess"),
    [
        ({"axes": "opengl"}, "behind_camera", "are `axes` of the card those of the file"),
        ({"units": "mm"}, "impossible_size", "are `units` of the card those of the file"),
        ({"units": "cm"}, "impossible_size", "expected 0.02 to 0.6"),
    ],
)
def test_a_wrong_card_is_noticed_at_the_door(tmp_path: Path, facts: dict, reason: str, guess: str) -> None:
    """Hands behind the lens, and of the size of a grain or of a house, would all be taken in and trained on."""
    fixture, _ = _write(tmp_path, "freihand_synth", "evaluation", 3)
    found = _read_all(
        open_adapter(replace_facts("freihand_synth", mano=None, **facts), str(fixture.raw_dir), "evaluation")
    )
    assert _reasons(found) == dict.fromkeys(fixture.truths, reason)
    assert all(guess in str(error) for error in found.values())


def replace_facts(name: str, **facts) -> catalog.DatasetSpec:
    return catalog.load_spec(name).model_copy(update=facts)
