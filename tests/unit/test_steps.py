"""The glue of the steps: receipts that hold, fingerprints of raw data, rebuilding, names of things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskhand.steps import data
from maskhand.steps.receipt import Receipt
from maskhand.storage import StorageError
from maskhand.workspace import Workspace


def test_a_receipt_holds_until_its_file_changes_or_goes(tmp_path: Path) -> None:
    path = tmp_path / "set" / "manifest.json"
    path.parent.mkdir()
    path.write_text("one")
    receipt = Receipt.of(str(path), samples=3)
    assert receipt.holds() and receipt.folder == str(path.parent) and receipt.numbers == {"samples": 3}
    path.write_text("two")
    assert not receipt.holds()
    path.unlink()
    assert not receipt.holds()
    with pytest.raises(StorageError, match="manifest"):
        Receipt.of(str(path))


def test_the_fingerprint_of_raw_data_follows_annotations_not_pictures(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "train").mkdir(parents=True)
    label = tmp_path / "annotations" / "train" / "joints.json"
    label.write_text("{}")
    first = data.raw_fingerprint(str(tmp_path))
    (tmp_path / "picture.jpg").write_bytes(b"x")
    assert data.raw_fingerprint(str(tmp_path)) == first
    os.utime(label, ns=(1, 1))
    second = data.raw_fingerprint(str(tmp_path))
    assert second != first
    (tmp_path / "more.json").write_text("{}")
    assert data.raw_fingerprint(str(tmp_path)) not in (first, second)


def test_sets_are_named_or_given_by_uri(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "s3://bucket/shards")
    assert data.uri_of_set(workspace, "freihand/training") == "s3://bucket/shards/freihand/training"
    assert data.uri_of_set(workspace, "s3://other/x/y") == "s3://other/x/y"
    assert data.uri_of_set(workspace, str(tmp_path)) == str(tmp_path)


def test_the_places_of_the_environment_hold_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for shards, found in (("", "home/shards"), ("sets/", "sets"), ("s3://bucket/x/", None)):
        monkeypatch.setenv("MASKHAND_WORKSPACE", "home")
        monkeypatch.setenv("MASKHAND_SHARDS", shards)
        workspace = Workspace.default()
        assert workspace.root == tmp_path / "home"
        assert workspace.shards_uri == (str(tmp_path / found) if found else "s3://bucket/x")
    monkeypatch.setenv("MASKHAND_WORKSPACE", "")
    assert Workspace.default().root == tmp_path / "workspace"


@pytest.mark.slow
def test_synthetic_data_asked_for_otherwise_needs_rebuild(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, str(tmp_path / "shards"))
    told: list[float] = []
    ask = lambda hands, rebuild: data.synthesise(workspace, hands, 0, 2, 0, lambda d, t, _="": told.append(d), rebuild)  # noqa: E731
    first = ask(1, False)
    assert told == [1] and first.numbers["hands"] == 1
    assert ask(1, False) == first and told == [1], "a finished data set is kept"
    with pytest.raises(ValueError, match="another"):
        ask(2, False)
    assert ask(2, True).digest != first.digest
