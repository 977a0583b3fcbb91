"""The particular traps of the sets with keypoints or letters only, of MTC, and every kind of broken label in them."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import Adapter, RawDataError, open_adapter, read_hand
from maskhand.sample import HandSample, SampleError
from maskhand.shards.codec import decode_sample, encode_sample
from support.published_layouts import WRITERS, Fixture, mtc
from support.published_layouts.hands import edit_json

FIRST_SPLIT = {
    "asl_alphabet": "train",
    "coco_wholebody": "train",
    "halpe": "train",
    "hand143_panopticdb": "train",
    "hand_labels_synth": "synth1",
    "hint": "TEST_newdays_img",
    "mpii_nzsl": "manual_train",
    "mtc": "training",
}
WITH_JOINTS = [name for name in FIRST_SPLIT if name != "asl_alphabet"]
FILE_PER_HAND = ["hint", "mpii_nzsl", "hand_labels_synth"]


def _write(folder: Path, name: str, count: int = 4, split: str | None = None, **how: Any) -> tuple[Fixture, Adapter]:
    spec, split = catalog.load_spec(name), split or FIRST_SPLIT[name]
    fixture = WRITERS[spec.layout](folder, spec, split, count, **how)
    return fixture, open_adapter(spec, str(fixture.raw_dir), split)


def _read_all(adapter: Adapter) -> dict[str, HandSample | SampleError]:
    plan, found = adapter.plan(), {}
    for position, key in enumerate(plan.keys):
        try:
            found[key] = read_hand(adapter, pickle.loads(pickle.dumps(plan.item(position))))
        except SampleError as error:
            assert key in str(error), "the sentence names the sample"
            found[key] = error
    return found


def _reasons(adapter: Adapter) -> dict[str, str]:
    return {key: sample.reason for key, sample in _read_all(adapter).items() if isinstance(sample, SampleError)}


@pytest.mark.parametrize("name", FIRST_SPLIT)
def test_fixtures_have_eight_hands_and_both_sides(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    sides = {truth.side for truth in fixture.truths.values()}
    assert len(fixture.truths) >= 8
    assert sides == ({"left", "right"} if catalog.load_spec(name).handedness == "both" else {"right"})
    assert len(adapter.plan().keys) == len(fixture.truths)


@pytest.mark.parametrize("name", FIRST_SPLIT)
def test_samples_survive_the_tar(tmp_path: Path, name: str) -> None:
    _, adapter = _write(tmp_path, name)
    for key, sample in _read_all(adapter).items():
        assert isinstance(sample, HandSample)
        again = decode_sample(key, encode_sample(sample))
        assert json.loads(json.dumps(sample.origin)) == again.origin
        for field in ("joints_2d_px", "joints_2d_conf", "joints_2d_occluded", "joints_cam_m", "box_xyxy_px"):
            np.testing.assert_array_equal(getattr(sample, field), getattr(again, field))


@pytest.mark.parametrize("name", WITH_JOINTS)
def test_a_missing_field_costs_the_hands_it_belongs_to(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    keys = list(fixture.truths)
    fixture.damage_joints(len(keys) - 2, None)
    damaged = fixture.truths[keys[-2]]
    hit = [key for key, truth in fixture.truths.items() if truth.shares_label(damaged)]
    if name == "halpe":
        # Published annotations without a list exist; they are counted in a note.
        assert set(_read_all(adapter)) == set(keys) - set(hit)
        assert "4 annotations have no usable list" in adapter.plan().notes[0]
        return
    reasons = _reasons(adapter)
    assert reasons.keys() == set(hit) and set(reasons.values()) <= {"missing_field", "not_annotated"}


@pytest.mark.parametrize("name", FILE_PER_HAND)
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "missing_label"), (b"", "bad_label"), (b"<html>", "bad_label"), (b"\xff\xfe{", "bad_label"),
     (b"7", "wrong_shape"), (b"[]", "wrong_shape"), (b"[{}]", "*"), (b"{}", "*"), (b"[[1], [2]]", "wrong_shape")],
)  # fmt: skip
def test_a_broken_label_file_costs_one_hand(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    last = list(fixture.truths)[-1]
    if content is None:
        fixture.joints_file.unlink()
    else:
        fixture.joints_file.write_bytes(content)
    found = {key: sample for key, sample in _read_all(adapter).items() if isinstance(sample, SampleError)}
    assert found.keys() == {last}
    assert found[last].reason in ({"missing_field", "wrong_shape"} if reason == "*" else {reason})
    assert str(fixture.joints_file) in str(found[last])


@pytest.mark.parametrize("name", FILE_PER_HAND)
def test_images_and_labels_that_are_alone_are_planned(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    whole, keys = adapter.plan(), list(fixture.truths)
    images = [fixture.truths[key].image_path for key in keys]
    images[0].with_suffix(".json").unlink()
    images[1].unlink()
    (images[2].parent / "notes.txt").write_text("neither an image nor a label")
    found = _read_all(adapter)
    assert list(found) == keys, "in the same order"
    alone = {key: error for key, error in found.items() if isinstance(error, SampleError)}
    assert {key: error.reason for key, error in alone.items()} == {keys[0]: "missing_label", keys[1]: "missing_image"}
    assert str(images[0].with_suffix(".json")) in str(alone[keys[0]]) and str(images[1]) in str(alone[keys[1]])
    assert adapter.plan().listed == len(keys) - 1 and whole.listed == len(keys), "what the labels list"


@pytest.mark.parametrize("name", FILE_PER_HAND)
def test_images_without_any_label_are_not_the_data_set(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    for truth in fixture.truths.values():
        truth.image_path.with_suffix(".json").unlink()
    assert not adapter.present()
    with pytest.raises(RawDataError, match="annotations not found; see how_to_get"):
        adapter.plan()


@pytest.mark.parametrize("name", FILE_PER_HAND)
def test_a_label_that_vanishes_after_planning_costs_one_hand(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    plan = adapter.plan()
    fixture.joints_file.unlink()
    with pytest.raises(SampleError) as error:
        read_hand(adapter, plan.item(len(plan.keys) - 1))
    assert error.value.reason == "missing_label"


@pytest.mark.parametrize("name", ["coco_wholebody", "halpe", "hand143_panopticdb"])
@pytest.mark.parametrize(
    "content", [b"[1, 2]", b"{}", b'{"images": [], "annotations": []}', b'{"root": []}', b'{"annotations": [3]}']
)
def test_a_json_file_of_something_else_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    fixture, adapter = _write(tmp_path, name)
    fixture.joints_file.write_bytes(content)
    with pytest.raises(RawDataError) as error:
        adapter.plan()
    assert str(fixture.joints_file) in str(error.value)


@pytest.mark.parametrize("name", ["coco_wholebody", "halpe"])
def test_sizes_and_orphans(tmp_path: Path, name: str) -> None:
    fixture, adapter = _write(tmp_path, name)
    first = next(iter(fixture.truths))
    path = fixture.truths[first].image_path
    shared = {key: "wrong_size" for key, truth in fixture.truths.items() if truth.image_path == path}
    cv2.imwrite(str(path), np.tile(np.arange(100, dtype=np.uint8)[:, None, None], (1, 100, 3)))
    assert _reasons(adapter) == shared
    edit_json(fixture.joints_file, lambda data: data["images"].pop(2))
    with pytest.raises(RawDataError, match="names an image that is not listed"):
        adapter.plan()


@pytest.mark.parametrize("change", [lambda a: a.pop("lefthand_valid"), lambda a: a.update(lefthand_valid=None)])
def test_a_hand_without_its_flag_is_refused(tmp_path: Path, change: Callable[[dict], Any]) -> None:
    """One person has the left hand, one has not; without the flag nobody can tell them apart."""
    fixture, adapter = _write(tmp_path, "coco_wholebody")
    ids: list[int] = []

    def strip(data: dict) -> None:
        for annotation in (data["annotations"][0], data["annotations"][2]):
            change(annotation)
            ids.append(annotation["id"])

    edit_json(fixture.joints_file, strip)
    found = _read_all(adapter)
    refused = {key: sample for key, sample in found.items() if isinstance(sample, SampleError)}
    assert list(refused) == [f"train-{number:010d}-l" for number in ids]
    assert set(found) == set(fixture.truths) | set(refused)
    for number, error in zip(ids, refused.values(), strict=True):
        assert error.reason == "missing_field"
        sentence = rf"annotation {number}: lefthand_valid is (missing|null), expected true or false"
        assert str(fixture.joints_file) in str(error) and re.search(sentence, str(error))


def test_persons_without_any_flag_are_counted(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "coco_wholebody")
    edit_json(
        fixture.joints_file, lambda data: [data["annotations"][1].pop(f"{s}hand_valid") for s in ("left", "right")]
    )
    assert "1 annotations have no usable list of keypoints" in adapter.plan().notes[0]
    assert set(_read_all(adapter)) == set(fixture.truths)


def test_a_hand_without_a_single_joint_is_not_annotated(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "coco_wholebody")
    fixture.damage_joints(0, [[0.0, 0.0, 0.0]] * 21)
    assert _reasons(adapter) == {next(iter(fixture.truths)): "not_annotated"}


@pytest.mark.parametrize(("name", "change"), [
    ("coco_wholebody", lambda a: [a.pop("area"), a.pop("lefthand_box", None)]),
    ("halpe", lambda a: [a.__setitem__("area", None)]),
])  # fmt: skip
def test_facts_that_only_evaluations_need_may_be_absent(
    tmp_path: Path, name: str, change: Callable[[dict], Any]
) -> None:
    fixture, adapter = _write(tmp_path, name)
    edit_json(fixture.joints_file, lambda data: [change(a) for a in data["annotations"] if "area" in a])
    found = _read_all(adapter)
    assert len(found) == len(fixture.truths)
    for sample in found.values():
        assert isinstance(sample, HandSample) and "person_area_px" not in sample.origin
        json.dumps(sample.origin, allow_nan=False)


@pytest.mark.parametrize("above", ["", "HInt_annotation", "HInt_annotation_partial"])
def test_hint_is_found_below_the_folder_of_its_archive(tmp_path: Path, above: str) -> None:
    fixture, adapter = _write(tmp_path, "hint", above=above)
    assert adapter.present() and set(_read_all(adapter)) == set(fixture.truths)


def test_hint_without_ego4d_s_frames_rejects_them_by_reason(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "hint", split="TRAIN_ego4d_img")
    for truth in fixture.truths.values():
        truth.image_path.unlink()
    assert _reasons(adapter) == dict.fromkeys(fixture.truths, "missing_image")


def test_a_name_without_side_is_not_guessed(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "hint")
    for ending in (".json", ".jpg"):
        fixture.joints_file.with_suffix(ending).rename(fixture.joints_file.with_name(f"zz_frame{ending}"))
    assert _reasons(adapter) == {"TEST_newdays_img-zz_frame": "bad_side"}
    other, adapter = _write(tmp_path / "synth", "hand_labels_synth")
    edit_json(other.joints_file, lambda fields: fields.pop("is_left"))
    assert _reasons(adapter) == {list(other.truths)[-1]: "bad_side"}


def test_manual_hands_without_the_flag_take_the_side_of_their_name(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "mpii_nzsl", above="hand_labels")
    for path in fixture.joints_file.parent.glob("*.json"):
        edit_json(path, lambda fields: fields.pop("is_left"))
    sides = {key: sample.side for key, sample in _read_all(adapter).items() if isinstance(sample, HandSample)}
    assert sides == {key: truth.side for key, truth in fixture.truths.items()}


def test_images_of_hand143_by_number_where_no_name_is_given(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "hand143_panopticdb", above="hand143_panopticdb")
    edit_json(fixture.joints_file, lambda data: [entry.pop("img_paths") for entry in data["root"]])
    found = _read_all(adapter)
    for key, truth in fixture.truths.items():
        sample = found[key]
        assert isinstance(sample, HandSample) and sample.image == truth.image_path.read_bytes()
    edit_json(fixture.joints_file, lambda data: data["root"][1].__setitem__("img_width", 640))
    assert _reasons(adapter) == {"train-00000001": "wrong_size"}
    edit_json(fixture.joints_file, lambda data: data["root"].__setitem__(1, "words"))
    assert _reasons(adapter) == {"train-00000001": "wrong_shape"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_letters_without_the_second_folder_and_their_empty_class(tmp_path: Path, split: str) -> None:
    fixture, adapter = _write(tmp_path, "asl_alphabet", split=split, levels=1)
    found = _read_all(adapter)
    assert list(found) == list(fixture.truths)
    assert "class 'nothing' show no hand and were left out" in adapter.plan().notes[0]
    numbers = [sample.origin["path"] for sample in found.values() if isinstance(sample, HandSample)]
    if split == "train":
        assert numbers[:12] == [f"A/A{k}.jpg" for k in range(1, 13)], "in the order of numbers, not of letters"
    else:
        assert len(found) == 27


def test_letters_are_dealt_four_to_one_within_each_letter(tmp_path: Path) -> None:
    fixture, _ = _write(tmp_path, "asl_alphabet", split="train", count=3)
    spec = catalog.load_spec("asl_alphabet")
    plans = {s: open_adapter(spec, str(fixture.raw_dir), s).plan() for s in ("letters_train", "letters_test")}
    learned, held_out = (set(plan.keys) for plan in plans.values())
    letters = {key for key in fixture.truths if key.startswith(("train-A", "train-Z"))}
    assert learned | held_out == letters and not learned & held_out
    assert sorted(key[:7] for key in held_out) == ["train-A", "train-A", "train-Z", "train-Z"], "of eleven each"
    (fixture.joints_file / "A" / "A12.jpg").write_bytes((fixture.joints_file / "A" / "A1.jpg").read_bytes())
    again = set(open_adapter(spec, str(fixture.raw_dir), "letters_test").plan().keys)
    assert {key for key in again if "Z" in key} == {key for key in held_out if "Z" in key}


def test_the_lens_of_the_studio(tmp_path: Path) -> None:
    """The camera of a sample holds where the hand is; the published matrix alone would miss by many pixels."""
    fixture, adapter = _write(tmp_path, "mtc", count=8)
    ours, published = [], []
    for key, sample in _read_all(adapter).items():
        truth = fixture.truths[key]
        assert isinstance(sample, HandSample) and sample.camera is not None and truth.joints_cam_m is not None
        assert truth.joints_px is not None
        off = sample.camera.project(truth.joints_cam_m) - truth.joints_px
        ours.append(np.linalg.norm(off, axis=1).max())
        K = np.array([[1395.0, 0, 950], [0, 1395, 555], [0, 0, 1]])
        bare = (truth.joints_cam_m @ K.T)[:, :2] / truth.joints_cam_m[:, 2:]
        published.append(np.linalg.norm(bare - truth.joints_px, axis=1).max())
        assert sample.camera.K_px[0, 1] == 0, "without skew, as the images' overlays expect"
    assert np.median(ours) < 2 and max(ours) < 4 and max(published) > 10 * max(ours)


@pytest.mark.parametrize("how", [{"names": ("a4_collected.pkl", "camera_data_a4.pkl")}, {"checks": False}])
def test_mtc_under_its_other_names_and_without_verdicts(tmp_path: Path, how: dict) -> None:
    fixture, adapter = _write(tmp_path, "mtc", **how)
    found = _read_all(adapter)
    assert list(found) == list(fixture.truths)
    notes = adapter.plan().notes
    assert ("a4_hands_annotated.txt is absent" in notes[0]) if how == {"checks": False} else not notes


def test_verdicts_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, "mtc")
    checks = fixture.raw_dir / "a4_hands_annotated.txt"
    checks.write_text(checks.read_text() + "171026_pose1 00004500 foot True\n")
    with pytest.raises(RawDataError, match=r"a4_hands_annotated.txt, line \d+: expected 'sequence frame"):
        adapter.plan()


@pytest.mark.parametrize(("factor", "found"), [(10, r"8\d\d|9\d\d"), (0.01, r"0\.\d+")])
def test_a_release_of_mtc_in_another_unit_is_a_sentence(tmp_path: Path, factor: float, found: str) -> None:
    fixture, adapter = _write(tmp_path, "mtc")

    def scale(people: dict) -> None:
        for person in people["training_data"]:
            for hand in (person[name] for name in ("left_hand", "right_hand") if name in person):
                hand["landmarks"] = [factor * number for number in hand["landmarks"]]

    mtc.edit(fixture.joints_file, scale)
    with pytest.raises(RawDataError, match=rf"annotation.pkl: .* unit \(cm\).* add up to ({found}) cm .*about 81"):
        adapter.plan()
    right_card = adapter.spec.model_copy(update={"units": {10: "mm", 0.01: "m"}[factor]})
    open_adapter(right_card, str(fixture.raw_dir), "training").plan()


@pytest.mark.parametrize(("field", "value", "reason"), [
    ("K", None, "not_annotated"),
    ("K", np.eye(2), "wrong_shape"),
    ("R", np.full((3, 3), np.nan), "not_finite"),
    ("distCoef", np.zeros(4), "wrong_shape"),
    ("t", np.array([[0.0], [0.0], [-500.0]]), "behind_camera"),
])  # fmt: skip
def test_a_bad_camera_costs_its_own_views(tmp_path: Path, field: str, value: Any, reason: str) -> None:
    fixture, adapter = _write(tmp_path, "mtc")
    camera = mtc.CAMERAS[2]
    hit = [key for key in fixture.truths if f"_{camera:02d}_" in key]
    mtc.edit(fixture.raw_dir / "camera_data.pkl", lambda all_: all_["171026_pose1"][camera].__setitem__(field, value))
    assert hit and _reasons(adapter) == dict.fromkeys(hit, reason)
    mtc.edit(fixture.raw_dir / "camera_data.pkl", lambda all_: all_["171026_pose1"].pop(camera))
    assert _reasons(adapter) == dict.fromkeys(hit, "no_camera")


class _Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("file", ["annotation.pkl", "camera_data.pkl"])
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path: Path, file: str) -> None:
    fixture, adapter = _write(tmp_path, "mtc")
    witness = tmp_path / "witness"
    (fixture.raw_dir / file).write_bytes(pickle.dumps({"training_data": [_Attack(f"touch {witness}")]}))
    with pytest.raises(RawDataError, match=rf"{file}: refused, the pickle asks for (posix|nt)\.system"):
        adapter.plan()
    assert not witness.exists(), "nothing of it was executed"


@pytest.mark.parametrize(
    "value", [[], {"training_data": 3}, {"training_data": []}, {"training_data": [{"seqName": "a"}]}]
)
def test_a_pickle_of_something_else_is_one_sentence(tmp_path: Path, value: Any) -> None:
    fixture, adapter = _write(tmp_path, "mtc")
    fixture.joints_file.write_bytes(pickle.dumps(value))
    with pytest.raises(RawDataError, match=r"annotation\.pkl: "):
        adapter.plan()


def test_a_card_that_does_not_fit_its_layout_is_one_sentence(tmp_path: Path) -> None:
    for name, message in (("hand143_panopticdb", "must name one"), ("asl_alphabet", "one handedness")):
        spec = catalog.load_spec(name).model_copy(update={"handedness": "both"})
        with pytest.raises(catalog.CatalogError, match=message):
            open_adapter(spec, str(tmp_path), FIRST_SPLIT[name])
    fixture, _ = _write(tmp_path, "mtc")
    for fact in ("units", "axes", "joint_order"):
        spec = catalog.load_spec("mtc").model_copy(update={fact: None})
        adapter = open_adapter(spec, str(fixture.raw_dir), "training")
        with pytest.raises(catalog.CatalogError, match=f"{fact}: null"):
            _read_all(adapter)


def test_interhand_s_missing_fields_cost_their_own_hands(tmp_path: Path) -> None:
    spec = catalog.load_spec("interhand26m")
    fixture = WRITERS[spec.layout](tmp_path, spec, "test", 6)
    data = tmp_path / "annotations" / "test" / "InterHand2.6M_test_data.json"
    edit_json(data, lambda value: value["annotations"][1].pop("joint_valid"))
    fixture.damage_joints(len(fixture.truths) - 1, None)
    adapter = open_adapter(spec, str(tmp_path), "test")
    keys = list(fixture.truths)
    # The damaged frame is that of the last image, whose other hand has no wrist.
    damaged = {keys[2]: "missing_field", keys[-1]: "missing_field"}
    assert _reasons(adapter) == fixture.rejects | damaged
