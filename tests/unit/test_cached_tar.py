"""Shards of large sets: the same samples as from memory, without their images in it."""

from __future__ import annotations

import gc
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from maskhand import storage
from maskhand.catalog import load_spec
from maskhand.shards import checked_tar
from maskhand.shards.build import build_shards
from maskhand.shards.cached_tar import CachedTar
from maskhand.shards.layout import IMAGES, ShardError, tar_uri
from maskhand.shards.mixture import TrainingStream
from maskhand.shards.reader import LoadedShard, ShardSample, ShardSet
from support.published_layouts import WRITERS

COUNT = 12


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    spec = load_spec("freihand_synth").model_copy(update={"mano": None, "images_per_annotation": {}})
    raw = WRITERS["freihand"](tmp_path / "raw", spec, "training", COUNT)
    build_shards(spec, str(raw.raw_dir), "training", str(tmp_path / "set"))
    return ShardSet.open(str(tmp_path / "set"))


def _tar(shards: ShardSet) -> Path:
    return Path(tar_uri(storage.join(shards.uri, IMAGES), shards.manifest.shards[0].name))


def _same(first: Iterable[ShardSample], second: Iterable[ShardSample]) -> None:
    for one, other in zip(first, second, strict=True):
        assert (one.index, one.sample.key, one.sample.image) == (other.index, other.sample.key, other.sample.image)
        np.testing.assert_array_equal(one.sample.joints_cam_m, other.sample.joints_cam_m)


def _samples(loaded: LoadedShard) -> list[ShardSample]:
    return [loaded.sample(position) for position in range(len(loaded))]


def test_a_kept_shard_holds_the_same_samples(shards: ShardSet) -> None:
    _same(_samples(shards.load(0)), _samples(shards.load(0, in_memory=False)))


def test_images_of_a_kept_shard_take_no_memory(shards: ShardSet) -> None:
    def held(in_memory: bool) -> int:
        tracemalloc.start()
        loaded = shards.load(0, in_memory)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(loaded) == COUNT
        return taken

    images = sum(len(sample.sample.image) for sample in shards.read_shard(0))
    held(True)  # whatever is loaded once
    assert held(True) - held(False) > 0.9 * images


def test_a_kept_shard_outlives_its_name_and_is_closed_in_the_end(shards: ShardSet) -> None:
    expected = _samples(shards.load(0))
    open_before = len(os.listdir("/proc/self/fd"))
    loaded = shards.load(0, in_memory=False)
    storage.write_bytes_atomic(_tar(shards), b"another tar")
    _same(expected, _samples(loaded))
    _tar(shards).unlink()
    _same(expected, _samples(loaded))
    assert len(os.listdir("/proc/self/fd")) == open_before + 1
    del loaded
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == open_before


def _cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:-512])


def _alter(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(_cut, "was cut or replaced"), (_alter, "it was altered"), (Path.unlink, "it is not there")],
)
def test_damaged_tars_are_refused(
    shards: ShardSet, damage: Callable[[Path], None], sentence: str, in_memory: bool
) -> None:
    damage(_tar(shards))
    with pytest.raises(ShardError, match=sentence):
        shards.load(0, in_memory)


def test_a_shard_is_checked_once_and_again_when_it_was_written_to(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    check = checked_tar._check_content
    monkeypatch.setattr(checked_tar, "_check_content", lambda uri, *rest: (checked.append(uri), check(uri, *rest)))
    for _ in range(3):
        shards.load(0, in_memory=False)
    assert checked == [str(_tar(shards))]
    _alter(_tar(shards))
    for _ in range(2):
        with pytest.raises(ShardError, match="it was altered"):
            shards.load(0, in_memory=False)


def test_a_kept_file_that_becomes_shorter_is_an_error_not_an_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    kept = CachedTar(str(tmp_path / "file"), "")
    assert (kept.read(), kept.read(2, 5)) == (b"0123456789", b"234")
    os.truncate(tmp_path / "file", 4)
    with pytest.raises(storage.StorageError, match="became shorter"):
        kept.read(2, 8)


def test_without_room_for_a_copy_the_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"content")
    stream = open(tmp_path / "object", "rb")  # noqa: SIM115
    monkeypatch.setattr(storage, "open_stream", lambda uri: stream)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(storage.StorageError, match=r"nowhere: no copy of s3://bucket/a.tar can be made.*TMPDIR"):
        CachedTar("s3://bucket/a.tar", "")


def test_with_a_cache_an_object_is_fetched_once_for_all_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "object").write_bytes(b"content")
    fetched: list[str] = []

    def open_stream(uri: str) -> IO[bytes]:
        fetched.append(uri)
        return open(tmp_path / "object" if storage.is_remote(uri) else uri, "rb")

    monkeypatch.setattr(storage, "open_stream", open_stream)
    monkeypatch.setenv("MASKHAND_CACHE", str(tmp_path / "cache"))
    first, second = (CachedTar("s3://bucket/a.tar", "abc") for _ in range(2))
    assert first.read() == second.read() == b"content"
    assert fetched.count("s3://bucket/a.tar") == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["abc.tar"]
    assert first.uri == str(tmp_path / "cache" / "abc.tar"), "what is said to be damaged is the copy"


def test_a_stream_over_a_large_set_is_that_over_a_small_one(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TrainingStream({shards.uri: 1.0})
    small = list(islice(stream.iterate(3), 2 * COUNT))
    monkeypatch.setattr("maskhand.shards.mixture.KEEP_BYTES", 0)
    _same(small, islice(stream.iterate(3), 2 * COUNT))
