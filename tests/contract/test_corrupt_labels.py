"""Every kind of broken label costs the hands it belongs to, for a reason that can be counted, and nothing else."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import RawDataError, open_adapter, read_hand
from maskhand.sample import SampleError
from support.published_layouts import WRITERS, Fixture, dexycb, ho3d, rhd
from support.published_layouts.hands import licensed_folder

Edit = Callable[[Path, str, dict[str, Any], tuple[str, ...]], None]
"""Change (or remove) fields of the label of the hand with this key."""


@dataclass(frozen=True)
class Labels:
    """Where a dataset keeps the label of one hand, and the fields that a reader needs."""

    split: str
    edit: Edit
    needed: tuple[str, ...]
    path: Callable[[Path, str], Path] | None = None
    """The label file of one key; None where all lie in one file."""


def _ho3d_path(root: Path, key: str) -> Path:
    split, sequence, frame = key.split("-")[:3]
    return root / split / sequence / "meta" / f"{frame}.pkl"


def _dexycb_path(root: Path, key: str) -> Path:
    _, subject, sequence, serial, frame = key.split("-")
    (folder,) = root.glob(f"*-subject-{subject}/{sequence}/{serial}")
    return folder / f"labels_{frame}.npz"


def _edit_rhd(root: Path, key: str, changes: dict[str, Any], remove: tuple[str, ...]) -> None:
    split, image_id, _ = key.split("-")
    rhd.edit_label(root / split / f"anno_{split}.pickle", int(image_id), changes, remove)


def _edit_ho3d(root: Path, key: str, changes: dict[str, Any], remove: tuple[str, ...]) -> None:
    ho3d.edit_label(_ho3d_path(root, key), changes, remove)


def _edit_dexycb(root: Path, key: str, changes: dict[str, Any], remove: tuple[str, ...]) -> None:
    dexycb.edit_label(_dexycb_path(root, key), changes, remove)


_ONE_HAND = ("camMat", "handJoints3D", "handPose", "handTrans", "handBeta")
_TWO_HANDS = ("camMat", "rightHandJoints3D", "rightHandPose", "rightHandTrans", "handBeta")
LABELS = {
    "ho3d_v2": Labels("train", _edit_ho3d, _ONE_HAND, _ho3d_path),
    "ho3d_v3": Labels("evaluation", _edit_ho3d, ("camMat", "handJoints3D", "handBoundingBox"), _ho3d_path),
    "h2o3d": Labels("train", _edit_ho3d, _TWO_HANDS, _ho3d_path),
    "dexycb": Labels("s0_train", _edit_dexycb, ("joint_3d", "pose_m"), _dexycb_path),
    "rhd": Labels("training", _edit_rhd, ("uv_vis", "xyz", "K")),
}
NEEDED = [(name, field) for name, labels in LABELS.items() for field in labels.needed]
WITH_FILES = [name for name, labels in LABELS.items() if labels.path]
SHARED_BY_BOTH_HANDS = ("camMat", "handBeta", "K", "uv_vis", "xyz")


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def _write(folder: Path, name: str) -> tuple[Fixture, str]:
    """A dataset of eight or more hands, and the key of a right hand in its middle."""
    fixture = WRITERS[catalog.load_spec(name).layout](folder / "raw", catalog.load_spec(name), LABELS[name].split, 9)
    assert len(fixture.truths) >= 8
    right = [key for key, truth in fixture.truths.items() if truth.side == "right"]
    return fixture, right[len(right) // 2]


def _reasons(fixture: Fixture, name: str) -> dict[str, str]:
    adapter = open_adapter(catalog.load_spec(name), str(fixture.raw_dir), LABELS[name].split)
    plan, reasons = adapter.plan(), {}
    for position, key in enumerate(plan.keys):
        try:
            read_hand(adapter, plan.item(position))
        except SampleError as error:
            reasons[key] = error.reason
            assert key in str(error), "the sentence names the sample"
    assert all(reasons.pop(key) == reason for key, reason in fixture.rejects.items())
    return reasons


def _sentences(fixture: Fixture, name: str, keys: list[str]) -> list[str]:
    adapter = open_adapter(catalog.load_spec(name), str(fixture.raw_dir), LABELS[name].split)
    plan, sentences = adapter.plan(), []
    for key in keys:
        with pytest.raises(SampleError) as error:
            read_hand(adapter, plan.item(list(plan.keys).index(key)))
        sentences.append(str(error.value))
    return sentences


def _hit(fixture: Fixture, key: str, field: str | None) -> list[str]:
    """Keys that share what was damaged: the other hand of the image where the field or the file is common."""
    alone = field is not None and field not in SHARED_BY_BOTH_HANDS
    path = fixture.truths[key].image_path
    return [k for k, truth in fixture.truths.items() if k == key or (truth.image_path == path and not alone)]


@pytest.mark.parametrize(("name", "field"), NEEDED)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("absent", "missing_field"),
        (np.full(2, 0.5), "wrong_shape"),
        (np.array([["a", "b"]]), "wrong_shape"),
        ("ragged", "wrong_shape"),
        ("nan", "not_finite"),
    ],
)
def test_a_broken_field(tmp_path: Path, name: str, field: str, value: Any, reason: str) -> None:
    fixture, key = _write(tmp_path, name)
    whole = _stored(fixture, name, key)[field]
    if isinstance(value, str) and value == "nan":
        value = np.array(whole, float)
        value.flat[-1] = np.nan
    if isinstance(value, str) and value == "ragged":
        value = np.array([1, 2]) if name == "dexycb" else [[1, 2, 3], [1, 2]]  # npz files know no lists
    removed = (field,) if isinstance(value, str) else ()
    LABELS[name].edit(fixture.raw_dir, key, {} if removed else {field: value}, removed)
    # NaN is in the last row, a joint of the right hand: the left one of the same table is as good as before.
    hit = [key] if reason == "not_finite" and field in ("uv_vis", "xyz") else _hit(fixture, key, field)
    assert _reasons(fixture, name) == dict.fromkeys(hit, reason)
    path = LABELS[name].path
    for sentence in _sentences(fixture, name, hit):
        assert str(path(fixture.raw_dir, key) if path else fixture.joints_file) in sentence
        assert field in sentence and "expected" in sentence


def _stored(fixture: Fixture, name: str, key: str) -> dict[str, Any]:
    path = LABELS[name].path
    if path is None:
        split, image_id, _ = key.split("-")
        file = fixture.raw_dir / split / f"anno_{split}.pickle"
        return pickle.loads(file.read_bytes(), encoding="latin1")[int(image_id)]
    file = path(fixture.raw_dir, key)
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {field: arrays[field] for field in arrays.files}
    return pickle.loads(file.read_bytes(), encoding="latin1")


@pytest.mark.parametrize("name", ["ho3d_v2", "ho3d_v3", "h2o3d"])
def test_an_empty_label_is_not_annotated(tmp_path: Path, name: str) -> None:
    """What frames hold that are not in the official list."""
    fixture, key = _write(tmp_path, name)
    LABELS[name].edit(fixture.raw_dir, key, dict.fromkeys(_stored(fixture, name, key)), ())
    assert _reasons(fixture, name) == dict.fromkeys(_hit(fixture, key, None), "not_annotated")


def test_one_hand_of_two_that_is_not_annotated_leaves_the_other(tmp_path: Path) -> None:
    fixture, key = _write(tmp_path, "h2o3d")
    _edit_ho3d(fixture.raw_dir, key, {"rightHandJoints3D": None, "rightHandPose": None, "rightHandTrans": None}, ())
    assert _reasons(fixture, "h2o3d") == {key: "not_annotated"}


class _Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("kind", ["missing_label", "cut", "empty", "html", "other", "attack"])
def test_a_broken_file(tmp_path: Path, name: str, kind: str) -> None:
    fixture, key = _write(tmp_path, name)
    locate = LABELS[name].path
    assert locate is not None
    path, witness = locate(fixture.raw_dir, key), tmp_path / "witness"
    whole = path.read_bytes()
    attack = pickle.dumps({"camMat": _Attack(f"touch {witness}")}, protocol=2)
    contents = {"cut": whole[: 2 * len(whole) // 3], "empty": b"", "html": b"<html>not found</html>", "attack": attack}
    contents["other"] = pickle.dumps([1, 2, 3], protocol=2)
    path.unlink() if kind == "missing_label" else path.write_bytes(contents[kind])
    pickled = path.suffix == ".pkl"
    reason = {"missing_label": kind, "attack": "unsafe_pickle" if pickled else "bad_label"}.get(kind, "bad_label")
    assert _reasons(fixture, name) == dict.fromkeys(_hit(fixture, key, None), reason)
    assert not witness.exists(), "nothing of the pickle was executed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({0: _Attack("true")}, protocol=2), r"refused, the pickle asks for (posix|nt)\.system"),
        (pickle.dumps([1, 2], protocol=2), "expected a dictionary from image number to annotation"),
        (b"", "not a readable pickle"),
    ],
)
def test_a_broken_file_of_all_labels_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    fixture, _ = _write(tmp_path, "rhd")
    fixture.joints_file.write_bytes(content)
    with pytest.raises(RawDataError, match=message) as error:
        _reasons(fixture, "rhd")
    assert str(fixture.joints_file) in str(error.value)


def test_an_annotation_that_is_no_dictionary_costs_its_image(tmp_path: Path) -> None:
    fixture, key = _write(tmp_path, "rhd")
    annotations = pickle.loads(fixture.joints_file.read_bytes(), encoding="latin1")
    annotations[int(key.split("-")[1])] = [1.0, 2.0]
    fixture.joints_file.write_bytes(pickle.dumps(annotations, protocol=2))
    hit = _hit(fixture, key, None)
    fixture.rejects.pop(f"{key[:-1]}l", None)
    found = _reasons(fixture, "rhd")
    assert {k: found[k] for k in hit} == dict.fromkeys(hit, "wrong_shape")
    assert {k.rpartition("-")[0] for k in found} == {key.rpartition("-")[0]}
