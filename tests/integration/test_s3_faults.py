"""Everything that touches shards behind a store that fails now and then ends with the bytes of a local folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from maskhand import s3, storage
from maskhand.annotate.mano_targets import annotate_mano
from maskhand.catalog import load_spec
from maskhand.sample import SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.layout import MANO
from maskhand.shards.mixture import TrainingStream
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints
from maskhand.shards.verify import verify
from maskhand.storage import StorageError
from support.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from support.published_layouts import WRITERS
from support.s3_server import s3_server

pytestmark = pytest.mark.slow

KEYPOINTS = "test"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    with (
        s3_server(tmp_path_factory.mktemp("s3")) as server,
        faulty_proxy(server.endpoint, share=0.3, stall_s=1.5) as proxy,
        pytest.MonkeyPatch.context() as environment,
    ):
        settings = server.environment() | {"AWS_ENDPOINT_URL": proxy.endpoint, "MASKHAND_S3_TIMEOUT_S": "0.7"}
        for name, value in settings.items():
            environment.setenv(name, value)
        yield proxy


def annotate(samples: list[ShardSample]) -> list[DetectedKeypoints | SampleError]:
    return [DetectedKeypoints(s.sample.joints_2d_px, np.ones(21)) for s in samples]  # type: ignore[arg-type]


def test_no_sample_is_lost(proxy: FaultyProxy, tmp_path: Path) -> None:
    spec = load_spec("freihand_synth").model_copy(update={"shard_size": 6, "images_per_annotation": {}})
    raw = WRITERS["freihand"](tmp_path / "raw", spec, "training", 20)
    places = "s3://shards/freihand_synth/training", str(tmp_path / "local")
    read = []
    for uri in places:
        manifest = build_shards(spec, str(raw.raw_dir), "training", uri)
        build_sidecar(uri, KEYPOINTS, Annotator("test", "1"), annotate)
        annotate_mano(uri)
        assert manifest.count == 20 and verify(uri) == []
        parts = (KEYPOINTS, MANO)
        stream = [s.sample.key for s in islice(TrainingStream({uri: 1.0}, parts).iterate(5), 60)]
        evaluated = [(s.index, s.sample.key) for s in ShardSet.open(uri, parts)]
        read.append((manifest, stream, evaluated))
    assert read[0] == read[1]
    assert [index for index, _ in read[0][2]] == list(range(20))
    assert all(proxy.seen[fault] for fault in FAULTS), f"every fault must have happened: {proxy.seen}"

    remote, local = places
    names = [uri.removeprefix(remote) for uri in storage.list_uris(remote)]
    assert names == [uri.removeprefix(local) for uri in storage.list_uris(local)]
    assert all(storage.read_bytes(remote + name) == storage.read_bytes(local + name) for name in names)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("503", r"s3://shards/x: the store at http://\S+ answered with 503; try again"),
        ("stall", r"s3://shards/x: the store at http://\S+ does not answer; check AWS_ENDPOINT_URL"),
        ("reset before", r"s3://shards/x: the store at http://\S+ does not answer; check AWS_ENDPOINT_URL"),
    ],
)
def test_a_store_that_stays_broken_is_given_up(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, fault: str, sentence: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    monkeypatch.setattr(proxy, "always", fault)
    before, started = proxy.seen["requests"], time.monotonic()
    for use in (lambda: storage.read_bytes("s3://shards/x"), lambda: storage.write_bytes_atomic("s3://shards/x", b"x")):
        with pytest.raises(StorageError, match=sentence):
            use()
    assert proxy.seen["requests"] - before == 6, "three attempts each"
    assert time.monotonic() - started < 60


def test_an_object_that_never_arrives_whole_is_given_up(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REOPENINGS", 2)
    storage.write_bytes_atomic("s3://shards/y", bytes(100_000))
    monkeypatch.setattr(proxy, "always", "no body")
    with pytest.raises(
        StorageError, match=r"s3://shards/y: reading broke off 3 times, last at byte 0 of 100000 .*check"
    ):
        storage.read_bytes("s3://shards/y")
