"""HaMeR's tars and evaluation files: images lie in tars or in other sets' folders, so the contract is its own."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhand import catalog, storage
from maskhand.adapters import Adapter, RawDataError, open_adapter, present_splits, read_hand
from maskhand.catalog import CatalogError
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT
from maskhand.sample import HandSample, SampleError
from support.published_layouts import hamer
from support.published_layouts.hands import Fixture, licensed_folder, pose_hand

SETS = [("hamer_tars", "cocow-train"), ("hamer_tars", "freihand-train"), ("hamer_eval", "TEST_newdays_img_all")]
WRITERS = {"hamer_tars": hamer.write_tars, "hamer_eval": hamer.write_npz}
TAR, NPZ = SETS[0], SETS[2]


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def _write(folder: Path, name: str, split: str, **how) -> tuple[Fixture, Adapter]:
    spec = catalog.load_spec(name)
    fixture = WRITERS[name](folder / "raw", spec, split, 6, **how)
    return fixture, open_adapter(spec, str(fixture.raw_dir), split)


def _read_all(adapter: Adapter) -> dict[str, HandSample | SampleError]:
    plan = adapter.plan()
    found: dict[str, HandSample | SampleError] = {}
    for position, key in enumerate(plan.keys):
        try:
            # a worker gets adapter and item pickled
            found[key] = pickle.loads(pickle.dumps(adapter)).read(pickle.loads(pickle.dumps(plan.item(position))))
        except SampleError as error:
            found[key] = error
    return found


def _reasons(adapter: Adapter) -> dict[str, str]:
    return {key: sample.reason for key, sample in _read_all(adapter).items() if isinstance(sample, SampleError)}


@pytest.mark.parametrize(("name", "split"), SETS)
def test_reads_every_hand_as_it_was_made(tmp_path: Path, name: str, split: str) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    found = _read_all(adapter)
    assert list(found) == list(fixture.truths) and len(found) >= 6
    assert {truth.side for truth in fixture.truths.values()} == {"right", "left"}
    for key, truth in fixture.truths.items():
        sample = found[key]
        assert isinstance(sample, HandSample), sample
        assert (sample.dataset, sample.side, sample.camera) == (name, truth.side, None)
        assert sample.image == truth.image_path.read_bytes(), "images are copied byte for byte"
        np.testing.assert_array_equal(sample.joints_3d_valid, truth.valid)
        np.testing.assert_array_equal(sample.joints_2d_conf, truth.valid.astype(np.float32))
        np.testing.assert_allclose(sample.joints_cam_m[truth.valid], truth.joints_cam_m[truth.valid], atol=1e-6)
        uvw = truth.joints_cam_m @ truth.K_px.T
        joints_px = (uvw[:, :2] / uvw[:, 2:])[truth.valid]
        np.testing.assert_allclose(sample.joints_2d_px[truth.valid], joints_px, atol=1e-3)
        box = [*joints_px.min(0), *joints_px.max(0)] if truth.box_xyxy_px is None else truth.box_xyxy_px
        np.testing.assert_allclose(sample.box_xyxy_px, box, atol=1e-3)


@pytest.mark.parametrize(("name", "split"), SETS)
def test_mano_parameters_give_back_the_mesh(tmp_path: Path, name: str, split: str) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    for key, sample in _read_all(adapter).items():
        assert isinstance(sample, HandSample) and sample.mano is not None
        truth = fixture.truths[key]
        left = truth.side == "left"
        pose = sample.mano.pose_aa * (MIRROR_AXIS_ANGLE if left else 1)
        transl = sample.mano.transl_cam_m * (MIRROR_POINT if left else 1)
        mesh = pose_hand("right", pose[0], pose[1:], sample.mano.betas, transl).vertices_m
        np.testing.assert_allclose(mesh * (MIRROR_POINT if left else 1), truth.vertices_cam_m, atol=2e-6)


@pytest.mark.parametrize(("name", "split"), SETS)
def test_without_the_licensed_model_parameters_are_left_out(
    tmp_path: Path, name: str, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASKHAND_MANO_DIR")
    _, adapter = _write(tmp_path, name, split)
    assert all(isinstance(s, HandSample) and s.mano is None for s in _read_all(adapter).values())
    assert any("MASKHAND_MANO_DIR" in note for note in adapter.plan().notes)


@pytest.mark.parametrize(("name", "split"), SETS)
def test_the_split_is_found_and_an_empty_folder_is_one_sentence(tmp_path: Path, name: str, split: str) -> None:
    spec = catalog.load_spec(name)
    with pytest.raises(RawDataError, match="not found; see how_to_get"):
        open_adapter(spec, str(tmp_path), split).plan()
    with pytest.raises(RawDataError, match=r"none of .* splits"):
        present_splits(spec, str(tmp_path))
    fixture, _ = _write(tmp_path, name, split)
    assert present_splits(spec, str(fixture.raw_dir)) == [split]


@pytest.mark.parametrize(
    ("name", "split", "value", "reason"),
    [
        (*TAR, [[float("nan")] * 4] * 21, "not_finite"),
        (*TAR, [[0.1, 0.2, 0.3]] * 21, "wrong_shape"),
        (*NPZ, [[float("nan")] * 4] * 21, "not_finite"),
    ],
)
def test_bad_labels_cost_only_their_own_samples(
    tmp_path: Path, name: str, split: str, value: list, reason: str
) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    fixture.damage_joints(2, value)
    key = list(fixture.truths)[2]
    found = _read_all(adapter)
    assert {k: sample.reason for k, sample in found.items() if isinstance(sample, SampleError)} == {key: reason}
    sentence = str(found[key])
    assert str(fixture.joints_file) in sentence and "keypoints_" in sentence and "expected" in sentence


@pytest.mark.parametrize(("name", "split"), [TAR, NPZ])
def test_the_source_digest_follows_labels(tmp_path: Path, name: str, split: str) -> None:
    fixture, adapter = _write(tmp_path, name, split)
    before = adapter.plan().source_digest
    assert adapter.plan().source_digest == before
    fixture.damage_joints(0, [[0.0, 0.0, 1.0, 1.0]] * 21)
    assert adapter.plan().source_digest != before


class _Foreign:
    """Its pickle runs a command when it is loaded by Python's own unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_corrupt_members_cost_only_their_own_samples(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, *TAR)
    assert isinstance(fixture, hamer.TarFixture)
    first, second = fixture.images
    marker = tmp_path / "executed"
    first[0].labels = pickle.dumps([{"extra_info": _Foreign(marker)}])
    first[1].labels = pickle.dumps({"keypoints_2d": 1})
    first[2].labels = pickle.dumps(first[2].hands)[:-40]
    first[3].drop = (first[3].extension,)
    first[5].drop = ("data.pyd",)
    del second[0].hands[0]["scale"]
    whole = fixture.loose / f"{second[2].key}.{second[2].extension}"
    whole.write_bytes(whole.read_bytes()[:5000])
    (fixture.loose / f"{second[3].key}.{second[3].extension}").write_bytes(b"<html>not found</html>")
    fixture.rewrite()
    split = TAR[1]
    assert _reasons(adapter) == {
        f"{split}-000000-000000-0": "unsafe_pickle",
        f"{split}-000000-000001-0": "bad_label",
        f"{split}-000000-000002-0": "bad_label",
        f"{split}-000000-000003-0": "missing_image",
        f"{split}-000000-000003-1": "missing_image",
        f"{split}-000000-000005-0": "missing_label",
        f"{split}-000001-000000-0": "missing_field",
        f"{split}-000001-000002-0": "cut_image",
        f"{split}-000001-000003-0": "bad_image",
        f"{split}-000001-000003-1": "bad_image",
    }
    assert not marker.exists()
    whole_keys = [key for key, sample in _read_all(adapter).items() if isinstance(sample, HandSample)]
    assert whole_keys == [f"{split}-000001-000000-1", f"{split}-000001-000005-0"]


@pytest.mark.parametrize("length", ["in a member", "between members"])
def test_a_cut_tar_is_one_sentence(tmp_path: Path, length: str) -> None:
    fixture, adapter = _write(tmp_path, *TAR)
    data = fixture.joints_file.read_bytes()
    end = data.rstrip(b"\0")
    kept = len(data) // 2 if length == "in a member" else -(-len(end) // 512) * 512
    fixture.joints_file.write_bytes(data[:kept])
    with pytest.raises(RawDataError, match=r"not a whole tar.*copy it again") as error:
        adapter.plan()
    assert str(fixture.joints_file) in str(error.value)


def test_the_filters_of_the_card(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, *TAR)
    assert isinstance(fixture, hamer.TarFixture)
    images = fixture.images[0]
    doubtful, few, bad, strange, half = (images[k].hands[h] for k, h in ((0, 0), (0, 1), (2, 0), (3, 0), (3, 1)))
    doubtful["keypoints_2d"][[1, 2], 2] = 0.29, 0.31
    few["keypoints_2d"][4:, 2] = 0.2
    bad["extra_info"]["fitting_loss"].item()["reprojection_loss"] = 31000.0
    strange["betas"] = strange["betas"] * 0 + [0, 0, -3.1, 0, 0, 0, 0, 0, 0, 0]
    half["has_betas"] = np.float32(0)
    fixture.rewrite()
    found = _read_all(adapter)
    keys = [f"{TAR[1]}-000000-{k:06d}-{h}" for k, h in ((0, 0), (0, 1), (2, 0), (3, 0), (3, 1))]
    assert {k: s.reason for k, s in found.items() if isinstance(s, SampleError)} == {
        keys[1]: "few_keypoints",
        keys[2]: "bad_fit",
    }
    kept, no_shape, no_betas = (found[keys[k]] for k in (0, 3, 4))
    assert isinstance(kept, HandSample) and kept.joints_2d_conf is not None
    assert kept.joints_2d_conf[1:3].tolist() == [0, np.float32(0.31)]
    assert isinstance(no_shape, HandSample) and isinstance(no_betas, HandSample)
    assert no_shape.mano is None and no_betas.mano is None
    bare = catalog.load_spec("hamer_tars").model_copy(update={"filters": None})
    with pytest.raises(CatalogError, match="needs the key filters"):
        open_adapter(bare, str(fixture.raw_dir), TAR[1])


def test_reading_a_sample_touches_its_own_bytes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture, adapter = _write(tmp_path, *TAR)
    plan = adapter.plan()
    spans: list[int] = []
    whole = storage.read_range
    monkeypatch.setattr(storage, "read_range", lambda uri, at, n: spans.append(n) or whole(uri, at, n))
    monkeypatch.setattr(storage, "open_stream", None)
    sample = read_hand(adapter, plan.item(3))
    assert len(spans) == 2 and spans[1] == len(sample.image) and sum(spans) < fixture.joints_file.stat().st_size / 3


@pytest.mark.parametrize("columns", [1, 2])
def test_evaluation_files_may_lack_everything_but_names_and_boxes(tmp_path: Path, columns: int) -> None:
    absent = ("right", "hand_keypoints_2d", "hand_keypoints_3d", "hand_pose", "betas", "has_hand_pose", "has_betas")
    fixture, adapter = _write(tmp_path, *NPZ, absent=(*absent, "extra_info"), scale_columns=columns)
    assert adapter.plan().notes == ()
    for key, sample in _read_all(adapter).items():
        assert isinstance(sample, HandSample) and sample.side == "right"
        assert (sample.joints_2d_px, sample.joints_cam_m, sample.mano) == (None, None, None)
        np.testing.assert_allclose(sample.box_xyxy_px, fixture.truths[key].box_xyxy_px, atol=1e-3)


def test_images_that_are_not_there_cost_only_their_own_samples(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, *NPZ)
    keys = list(fixture.truths)
    fixture.truths[keys[1]].image_path.unlink()
    assert _reasons(adapter) == {keys[1]: "missing_image"}


def test_object_arrays_are_never_unpickled_by_numpy(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    foreign = np.array([_Foreign(marker)] * 6, dtype=object)
    fixture, adapter = _write(tmp_path, *NPZ, absent=("extra_info",), extra={"extra_info": foreign})
    assert len(_read_all(adapter)) == 6, "extra_info is not needed"
    _, asked = _write(tmp_path / "asked", *NPZ, absent=("right",), extra={"right": foreign})
    with pytest.raises(RawDataError, match=r"refused, the pickle asks for (posix|nt).system"):
        asked.plan()
    assert not marker.exists() and fixture.joints_file.exists()


def test_damaged_evaluation_files_are_one_sentence(tmp_path: Path) -> None:
    fixture, adapter = _write(tmp_path, *NPZ)
    data = fixture.joints_file.read_bytes()
    fixture.joints_file.write_bytes(data[: len(data) // 2])
    with pytest.raises(RawDataError, match=r"not a whole npz file.*copy it again"):
        adapter.plan()
    fixture.joints_file.write_bytes(data)
    with zipfile.ZipFile(fixture.joints_file, "w"):
        pass
    with pytest.raises(RawDataError, match="array 'imgname' is missing"):
        adapter.plan()
    np.savez(fixture.joints_file, imgname=np.array(["a", "b"]), center=np.zeros((3, 2)), scale=np.ones(2))
    with pytest.raises(RawDataError, match=r"center has shape \(3, 2\), expected 2 rows"):
        adapter.plan()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (lambda names: np.array([b"caf\xe9.jpg", *names.astype("S")[1:]]), "caf\udce9.jpg: there is no such file"),
        (lambda names: np.stack([names, names], axis=1), "expected 6 rows, one per imgname"),
    ],
)
def test_names_of_images(tmp_path: Path, names: Any, found: str) -> None:
    """In Latin-1, as bytes, one hand is rejected; two names for each hand are another kind of file."""
    spec = catalog.load_spec("hamer_eval")
    split = next(iter(spec.splits))
    fixture = hamer.write_npz(tmp_path, spec, split, 3)
    (path,) = fixture.raw_dir.rglob(f"{split}.npz")
    with np.load(path, allow_pickle=True) as arrays:
        changed = dict(arrays) | {"imgname": names(arrays["imgname"].astype(str))}
    np.savez(path, **changed)
    adapter = open_adapter(spec, str(fixture.raw_dir), split)
    with pytest.raises((RawDataError, SampleError), match=found):
        read_hand(adapter, adapter.plan().item(0))
    if "such file" in found:
        read_hand(adapter, adapter.plan().item(1))
