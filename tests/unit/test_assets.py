"""Fetching: verified, whole or not at all, one sentence when it fails; the list tells what is there."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from maskhand import fetched_models as subject
from maskhand.assets import MANO_ENV, OPENPOSE_FILE, list_assets
from maskhand.fetched_models import AssetError, WheelMember, extract_members, hand_models


@pytest.fixture
def fake(monkeypatch):
    """Two members with known content, and a function that packs a wheel of given contents."""
    contents = {"a/one.tflite": b"first model", "b/two.tflite": b"second model"}
    members = {path: WheelMember(path, hashlib.sha256(data).hexdigest()) for path, data in contents.items()}
    monkeypatch.setattr(subject, "LANDMARK_MODEL", members["a/one.tflite"])
    monkeypatch.setattr(subject, "PALM_MODEL", members["b/two.tflite"])

    def pack(folder: Path, **changed: bytes) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / "mediapipe-0.10.21-cp311-cp311-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, data in contents.items():
                archive.writestr(path, changed.get(Path(path).stem, data))
        return wheel

    return pack


@pytest.fixture
def downloads(monkeypatch):
    """Replaces the call of pip; collects the commands."""
    calls: list[list[str]] = []

    def install(behavior):
        def run(command, **kwargs):
            calls.append(command)
            return behavior(Path(command[command.index("--dest") + 1]))

        monkeypatch.setattr(subject.subprocess, "run", run)
        return calls

    return install


def test_missing_models_are_fetched_once(tmp_path, fake, downloads):
    def deliver(dest):
        fake(dest)
        return subprocess.CompletedProcess([], 0, "", "")

    calls = downloads(deliver)
    folder = tmp_path / "assets"
    models = hand_models(folder)
    assert models.landmark.read_bytes() == b"first model" and models.palm.read_bytes() == b"second model"
    assert hand_models(folder) == models and len(calls) == 1
    assert "mediapipe==0.10.21" in calls[0] and "--no-deps" in calls[0]
    assert sorted(p.name for p in folder.iterdir()) == ["one.tflite", "two.tflite"], "nothing else is left behind"


def test_offline_is_one_sentence_that_says_what_to_do(tmp_path, fake, downloads):
    downloads(lambda dest: subprocess.CompletedProcess([], 1, "", "retrying\nERROR: No matching distribution found"))
    with pytest.raises(AssetError, match=r"No matching distribution.*put that wheel or one\.tflite and two") as e:
        hand_models(tmp_path / "assets")
    assert "\n" not in str(e.value)


def test_a_wheel_put_there_by_hand_needs_no_network(tmp_path, fake, downloads):
    calls = downloads(lambda dest: pytest.fail("the network was asked"))
    fake(tmp_path)
    assert hand_models(tmp_path).palm.read_bytes() == b"second model"
    assert calls == []


def test_another_content_is_refused_and_leaves_nothing(tmp_path, fake):
    fake(tmp_path, two=b"something else")
    with pytest.raises(AssetError, match=r"b/two\.tflite has sha256"):
        hand_models(tmp_path)
    assert not (tmp_path / "one.tflite").exists() and not (tmp_path / "two.tflite").exists()


def test_a_damaged_file_is_named(tmp_path, fake):
    fake(tmp_path)
    models = hand_models(tmp_path)
    models.landmark.write_bytes(b"cut")
    with pytest.raises(AssetError, match=r"one\.tflite: sha256 is .* delete the file"):
        hand_models(tmp_path)


def test_a_file_that_is_no_wheel_is_named(tmp_path):
    wheel = tmp_path / "mediapipe-0.10.21.whl"
    wheel.write_bytes(b"no zip")
    with pytest.raises(AssetError, match="not the expected wheel"):
        extract_members(wheel, [WheelMember("a/b", "0" * 64)], tmp_path)


def test_the_list_follows_what_is_there(tmp_path, monkeypatch):
    monkeypatch.delenv(MANO_ENV, raising=False)
    before = {a.name: a for a in list_assets(tmp_path / "assets")}
    assert before["open hand"].present and not before["MANO"].present
    assert not before["hand landmark models"].present and not before["OpenPose hand weights"].present
    assert all(a.purpose and a.license and a.how_to_get and a.where for a in before.values())

    for name in ("MANO_RIGHT.pkl", "MANO_LEFT.pkl"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "assets").mkdir()
    for name in ("hand_landmark_full.tflite", "palm_detection_full.tflite", OPENPOSE_FILE):
        (tmp_path / "assets" / name).write_bytes(b"")
    monkeypatch.setenv(MANO_ENV, str(tmp_path))
    after = {a.name: a.present for a in list_assets(tmp_path / "assets")}
    assert after["MANO"] and after["hand landmark models"] and after["OpenPose hand weights"]
    assert not after["ViTPose-H checkpoint"]


def test_the_published_models_carry_their_checksums(assets):
    models = hand_models(assets)
    for path, member in ((models.landmark, subject.LANDMARK_MODEL), (models.palm, subject.PALM_MODEL)):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == member.sha256
