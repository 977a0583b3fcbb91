"""Shards behind `s3://`, against a real server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from maskhand import s3, storage
from maskhand.catalog import load_spec
from maskhand.cli import main
from maskhand.cluster.session import ray_session
from maskhand.progress import silent
from maskhand.shards.build import build_shards
from maskhand.shards.mixture import TrainingStream
from maskhand.shards.reader import ShardSet
from maskhand.shards.verify import verify
from maskhand.steps import inspection, step_inputs
from maskhand.storage import MissingFileError, StorageError
from maskhand.workspace import Workspace
from support.published_layouts import WRITERS
from support.s3_server import S3Server, s3_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def _environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def test_the_storage_functions(server: S3Server) -> None:
    folder = f"s3://{server.bucket}/storage"
    big = bytes(range(256)) * 4 * 12_000  # 12 MB
    storage.write_bytes_atomic(storage.join(folder, "big"), big)
    storage.write_bytes_atomic(storage.join(folder, "sub", "small"), b"small")
    assert storage.list_uris(folder) == [f"{folder}/big", f"{folder}/sub/small"]
    assert storage.list_uris(f"s3://{server.bucket}/stor") == [], "a prefix is a folder, not a beginning of a name"
    assert storage.list_folders(folder) == ["sub"]
    assert storage.read_bytes(f"{folder}/big") == big
    assert storage.size(f"{folder}/big") == len(big)
    assert storage.read_range(f"{folder}/big", 1000, 5_000_000) == big[1000:5_001_000]
    assert storage.sha256(f"{folder}/big") == hashlib.sha256(big).hexdigest()
    storage.delete(f"{folder}/sub/small")
    assert not storage.exists(f"{folder}/sub/small")


def test_errors_are_sentences(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match="there is no such file"):
        storage.read_bytes(f"s3://{server.bucket}/nothing")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        storage.read_bytes("s3://no-such-bucket/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3._client.cache_clear()
    with pytest.raises(StorageError, match="refused"):
        storage.write_bytes_atomic(f"s3://{server.bucket}/x", b"")
    s3._client.cache_clear()


def test_shards_are_the_same_as_in_a_folder(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec("freihand_synth").model_copy(update={"shard_size": 6})
    raw = WRITERS["freihand"](tmp_path / "raw", spec, "training", 20)
    remote, local = f"s3://{server.bucket}/freihand_synth/training", str(tmp_path / "local")
    manifest = build_shards(spec, str(raw.raw_dir), "training", remote)
    assert manifest == build_shards(spec, str(raw.raw_dir), "training", local)
    names = [uri.removeprefix(remote) for uri in storage.list_uris(remote)]
    assert names == [uri.removeprefix(local) for uri in storage.list_uris(local)]
    assert all(storage.read_bytes(remote + name) == storage.read_bytes(local + name) for name in names)
    assert verify(remote) == []
    assert len(list(ShardSet.open(remote))) == manifest.count == 20
    order = [s.sample.key for s in islice(TrainingStream({remote: 1.0}).iterate(7), 30)]
    assert order == [s.sample.key for s in islice(TrainingStream({local: 1.0}).iterate(7), 30)]
    monkeypatch.setattr("maskhand.shards.mixture.KEEP_BYTES", 0)
    kept = list(islice(TrainingStream({remote: 1.0}).iterate(7), 30))
    assert order == [s.sample.key for s in kept]
    assert {s.sample.key: s.sample.image for s in kept} == {
        s.sample.key: s.sample.image for s in ShardSet.open(local) if s.sample.key in order
    }

    home = Workspace(tmp_path, str(tmp_path / "shards"))
    seen = inspection.inspect(home, remote, silent, out=f"s3://{server.bucket}/reports")
    there = inspection.inspect(home, local, silent)
    assert storage.read_bytes(f"{seen.folder}/sheet.png") == storage.read_bytes(f"{there.folder}/sheet.png")
    assert inspection.table(seen) == inspection.table(there)

    tar = f"{remote}/images/000001.tar"
    whole = storage.read_bytes(tar)
    storage.write_bytes_atomic(tar, whole[:-1024])
    assert [(p.kind, p.uri) for p in verify(remote)] == [("truncated", tar)]
    storage.delete(tar)
    assert [(p.kind, p.uri) for p in verify(remote)] == [("missing", tar)]
    assert build_shards(spec, str(raw.raw_dir), "training", remote) == manifest
    assert storage.read_bytes(tar) == whole


def test_the_fingerprint_of_raw_data_follows_the_objects(server: S3Server) -> None:
    folder = f"s3://{server.bucket}/raw-data"
    seen = []
    for name, content in (("a/labels.json", b"[1]"), ("a/labels.json", b"[2]"), ("a/x.JPG", b"x"), ("b.json", b"1")):
        storage.write_bytes_atomic(f"{folder}/{name}", content)
        seen.append(step_inputs.raw_fingerprint(folder))
    assert seen[1] == seen[2] and len(set(seen)) == 3


def _verb(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*words])
    assert end.value.code == 0


def test_the_verbs_from_files_to_a_contact_sheet(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--raw s3://...`, `--out s3://...`, and then the set by its URI."""
    monkeypatch.setenv("MASKHAND_WORKSPACE", str(tmp_path / "workspace"))
    WRITERS["hint"](tmp_path / "raw", load_spec("hint"), "VAL_epick_img", 4)
    place, raw = f"s3://{server.bucket}/verbs", f"s3://{server.bucket}/published"
    for path in (tmp_path / "raw").rglob("*.*"):
        storage.write_bytes_atomic(f"{raw}/{path.relative_to(tmp_path / 'raw')}", path.read_bytes())
    set_uri = f"{place}/hint/VAL_epick_img"
    with ray_session():  # one for all verbs, which would start one each
        _verb("shard", "hint", "--raw", raw, "--out", f"{place}/")
        _verb("annotate", "mano", set_uri)
        _verb("mask", set_uri)
    _verb("verify", set_uri, f"{set_uri}-masked80")
    _verb("inspect", set_uri, "--out", f"{place}/reports")
    names = {uri.removeprefix(f"{place}/") for uri in storage.list_uris(place)}
    assert {f"hint/VAL_epick_img/{part}/manifest.json" for part in ("images", "mano")} <= names
    assert "hint/VAL_epick_img-masked80/images/manifest.json" in names
    assert any(name.startswith("reports/") and name.endswith("sheet.png") for name in names)
    assert not (tmp_path / "workspace" / "shards").exists()
