"""Local files and the S3 reader's recovery, against a fake store that breaks connections."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EndpointConnectionError

from maskhand import s3, s3_patience, storage
from maskhand.cluster.driver_state import DriverState
from maskhand.disk import check_writable, full_disk_told
from maskhand.storage import MissingFileError, StorageError
from maskhand.storage_errors import StoreSettingError, sentences
from maskhand.workspace import Workspace
from support.warned import warnings_of


def test_write_read_list_delete(tmp_path: Path) -> None:
    uri = storage.join(tmp_path, "a", "b.bin")
    assert not storage.exists(uri) and storage.size(uri) is None
    storage.write_bytes_atomic(uri, b"one")
    storage.write_bytes_atomic(uri, b"second")
    assert storage.read_bytes(uri) == b"second"
    assert storage.size(uri) == 6
    assert [storage.read_range(uri, *r) for r in ((1, 3), (4, 99), (2, 0))] == [b"eco", b"nd", b""]
    assert storage.sha256(uri) == hashlib.sha256(b"second").hexdigest()
    storage.write_bytes_atomic(storage.join(tmp_path, "a", "c", "d.bin"), b"other")
    assert storage.list_uris(tmp_path) == [str(tmp_path / p) for p in ("a/b.bin", "a/c/d.bin")]
    assert storage.list_folders(tmp_path) == ["a"] and storage.list_folders(tmp_path / "nowhere") == []
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    assert storage.list_uris(tmp_path / "nowhere") == []


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "file")
    storage.write_bytes_atomic(uri, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"file: no space left on device"):
        storage.write_bytes_atomic(uri, b"new")
    assert storage.read_bytes(uri) == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_file_written_in_pieces_appears_at_once_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "x.tar"
    with storage.atomic_writer(target) as write:
        write(b"one")
        assert storage.list_uris(tmp_path) == []
        write(b"two")
    assert storage.read_bytes(target) == b"onetwo"
    with pytest.raises(FileNotFoundError, match="another file"), storage.atomic_writer(target) as write:
        write(b"half")
        raise FileNotFoundError("another file")  # of whatever the block reads: passed as it is
    assert storage.read_bytes(target) == b"onetwo"
    assert [p.name for p in target.parent.iterdir()] == ["x.tar"]


def test_unfinished_writes_are_not_listed_and_can_be_cleaned(tmp_path: Path) -> None:
    (tmp_path / ".x.tar.0123.partial").write_bytes(b"half")
    (tmp_path / "x.tar").write_bytes(b"whole")
    assert storage.list_uris(tmp_path) == [str(tmp_path / "x.tar")]
    storage.clean_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.tar"]


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.tar: there is no such file"):
        storage.read_bytes(tmp_path / "nothing.tar")


@pytest.mark.parametrize("mistyped", ["s3:/shards/v1", "gs://bucket/shards", "file:///data/shards"])
def test_an_address_of_no_store_is_no_folder(mistyped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_SHARDS", mistyped)
    with pytest.raises(StorageError, match=f"^{mistyped}: neither a folder nor s3://bucket/prefix; mind the two"):
        Workspace.at()


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == [], "work that fails leaves no empty folder"
    check_writable("s3://bucket/anything")
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StorageError, match=r"file/below: nothing can be written here \(not a directory\); choose another"
    ):
        check_writable(tmp_path / "file" / "below")
    more_mib = shutil.disk_usage(tmp_path).total / 2**20 + 1
    with pytest.raises(StorageError, match=r"new: its disk has \d+ MiB left, and about \d+ MiB are needed; free some"):
        check_writable(tmp_path / "new", more_mib)


def test_asking_for_a_file_ahead_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"image")
    before = len(os.listdir("/proc/self/fd"))
    for uri in (tmp_path / "image.jpg", tmp_path / "nothing.jpg", tmp_path, "s3://bucket/image.jpg"):
        storage.will_read(uri)
    assert len(os.listdir("/proc/self/fd")) == before, "files are closed again"
    assert storage.read_bytes(tmp_path / "image.jpg") == b"image"


class FlakyStore:
    """Serves one object; every connection breaks after `piece` bytes, by an error or by an early end."""

    def __init__(self, data: bytes, piece: int, silent: bool) -> None:
        self.data, self.piece, self.silent = data, piece, silent
        self.version = "v1"
        self.ranges: list[str | None] = []

    def get_object(self, Bucket: str, Key: str, Range: str | None = None, IfMatch: str | None = None) -> dict[str, Any]:
        self.ranges.append(Range)
        if IfMatch not in (None, self.version):
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "GetObject")
        first, _, last = (Range or "bytes=0-").removeprefix("bytes=").partition("-")
        start, stop = int(first), int(last) + 1 if last else len(self.data)
        body = _BrokenBody(self.data[start : min(stop, start + self.piece)], self.silent)
        return {"ContentLength": stop - start, "ETag": self.version, "Body": body}


class _BrokenBody(io.BytesIO):
    def __init__(self, data: bytes, silent: bool) -> None:
        super().__init__(data)
        self._silent = silent

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and not self._silent:
            raise ConnectionResetError("connection reset by peer")
        return data


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3.time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize("silent", [False, True], ids=["error", "early end"])
def test_a_broken_s3_stream_continues_where_it_stopped(
    silent: bool, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    store = FlakyStore(bytes(range(256)) * 40, piece=4000, silent=silent)
    monkeypatch.setattr(s3, "client", lambda: store)
    assert storage.read_bytes("s3://bucket/key") == store.data
    assert store.ranges == [None, "bytes=4000-", "bytes=8000-"]


def test_a_broken_read_of_a_range_continues_and_ends_with_the_range(
    monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    store = FlakyStore(bytes(range(256)) * 40, piece=4000, silent=False)
    monkeypatch.setattr(s3, "client", lambda: store)
    assert storage.read_range("s3://bucket/key", 100, 6000) == store.data[100:6100]
    assert store.ranges == ["bytes=100-6099", "bytes=4100-"]


def test_a_dead_s3_stream_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    store = FlakyStore(b"x" * 100, piece=0, silent=False)
    monkeypatch.setattr(s3, "client", lambda: store)
    with pytest.raises(StorageError, match=r"s3://b/k: reading broke off 6 times, last at byte 0 of 100"):
        storage.read_bytes("s3://b/k")


def test_an_object_replaced_while_being_read_is_not_mixed(monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    store = FlakyStore(b"a" * 100, piece=60, silent=False)
    monkeypatch.setattr(s3, "client", lambda: store)
    stream = storage.open_stream("s3://b/k")
    store.version = "v2"
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        stream.read()


def test_progress_forgives_earlier_failures(monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    store = FlakyStore(bytes(1000), piece=10, silent=False)
    monkeypatch.setattr(s3, "client", lambda: store)
    assert len(storage.read_bytes("s3://b/k")) == 1000


def test_no_store_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3._client.cache_clear()
    client = s3.client()
    monkeypatch.setattr(client, "head_object", lambda **_: _raise_no_endpoint())
    with pytest.raises(StorageError, match=r"the store at http://127.0.0.1:9 does not answer; check AWS_ENDPOINT_URL"):
        storage.exists("s3://bucket/key")
    assert client.meta.endpoint_url == "http://127.0.0.1:9"


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration as `aws configure` writes it, and nothing in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    lines = ["[profile team]", "region = garage", "endpoint_url = http://127.0.0.1:9", "aws_access_key_id = me",
             "aws_secret_access_key = not-a-secret"]  # fmt: skip
    (tmp_path / "config").write_text("\n".join(lines))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    s3._client.cache_clear()
    return tmp_path / "config"


def test_the_settings_of_the_profile_are_used_and_travel(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = s3.client().meta
    assert (meta.region_name, meta.endpoint_url) == ("garage", "http://127.0.0.1:9")
    sent = DriverState.of_this_process()
    profile.unlink()  # the other machine has none
    monkeypatch.delenv("AWS_PROFILE")
    with sent.taken_over():
        there = s3.client()
        signer = there._request_signer
        assert (there.meta.region_name, there.meta.endpoint_url) == ("garage", "http://127.0.0.1:9")
        assert signer._credentials.get_frozen_credentials().secret_key == "not-a-secret"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert s3.client().meta.region_name == "eu-west-3"


@pytest.mark.parametrize(
    ("settings", "uri", "words"),
    [
        ({"AWS_PROFILE": "typo"}, "s3://bucket/key", "AWS_PROFILE=typo is not in ~/.aws/config"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9"}, "s3://bucket/key", "AWS_ENDPOINT_URL=127.0.0.1:9: expected an address"),
        ({}, "s3://my bucket/key", "the bucket's name can hold letters"),
        ({"AWS_ENDPOINT_URL": "ftp://127.0.0.1"}, "s3://bucket/key", "AWS_ENDPOINT_URL=ftp://127.0.0.1: expected an"),
        ({"AWS_DEFAULT_REGION": "us east"}, "s3://bucket/key", "the region in AWS_DEFAULT_REGION"),
        ({"AWS_CONFIG_FILE": __file__}, "s3://bucket/key", "the file of AWS_CONFIG_FILE, cannot be read"),
        ({"AWS_MAX_ATTEMPTS": "0"}, "s3://bucket/key", "AWS_MAX_ATTEMPTS=0: expected a number from 1 on, such as 3"),
        ({"MASKHAND_S3_TIMEOUT_S": "inf"}, "s3://bucket/key", "MASKHAND_S3_TIMEOUT_S=inf: expected a number from 0.1"),
        ({"AWS_MAX_ATTEMPTS": "many"}, "s3://bucket/key", "AWS_MAX_ATTEMPTS=many: expected a number from 1 on"),
    ],
)
def test_a_mistake_of_ones_own_is_not_put_down_to_the_store(
    settings: dict[str, str], uri: str, words: str, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreSettingError, match=re.escape(words)) as error:
        storage.read_bytes(uri)
    assert not error.value.retryable


@pytest.mark.parametrize("page", [b"<html><body>Welcome</body></html>", b"", b"OK"])
def test_a_web_server_is_no_empty_store(page: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers every request with 200 and a page, such as a store's console, or a portal of the network."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else page)

        do_HEAD = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", address := f"http://127.0.0.1:{server.server_port}")
        uri = "s3://bucket/x"
        for ask in (
            storage.list_uris,
            storage.list_folders,
            storage.list_etags,
            storage.size,
            storage.read_bytes,
            lambda uri: storage.read_range(uri, 0, 1),
            lambda uri: storage.write_bytes_atomic(uri, b""),
        ):
            with pytest.raises(storage.StorageError, match=f"{uri}: .*{address} (is no S3 store|answered)") as error:
                ask(uri)
            assert page == b"OK" or not error.value.retryable
        server.shutdown()


def test_a_store_without_tls_is_no_broken_one() -> None:
    from botocore.exceptions import SSLError

    words = r"no secure connection to .*; write http:// in AWS_ENDPOINT_URL"
    with pytest.raises(StorageError, match=words), sentences("s3://bucket/key"):
        raise SSLError(endpoint_url="https://127.0.0.1:9", error="WRONG_VERSION_NUMBER")


def _raise_no_endpoint() -> None:
    from botocore.exceptions import EndpointConnectionError

    raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


@pytest.mark.parametrize("free", [4096, 1 << 30])
def test_a_library_that_finds_no_space_is_put_into_words(free: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    raw = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    kind, said = (RuntimeError, "unexpected pos") if free > 4096 else (StorageError, f"{tmp_path}: the disk is full")
    with pytest.raises(kind, match=said) as found, full_disk_told(tmp_path):
        raise raw
    assert not getattr(found.value, "retryable", False)


@pytest.mark.parametrize(
    ("setting", "down_s", "waited_s"),
    [({}, 20.0, 20.0), ({}, 1000.0, 60.0), ({"AWS_MAX_ATTEMPTS": "2"}, 20.0, 0.0)],
    ids=["a restart of the store", "for good", "attempts by the user"],
)
def test_a_store_that_is_down_is_waited_for(
    setting: dict[str, str],
    down_s: float,
    waited_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock is the pauses between the attempts; for its first `down_s` nothing listens at the store's address."""
    import botocore.endpoint

    now_s, told = 0.0, warnings_of(s3_patience.__name__, monkeypatch)

    def sleep(pause_s: float) -> None:
        nonlocal now_s
        now_s += pause_s

    def send(*_: object) -> AWSResponse:
        if now_s < down_s:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
        return AWSResponse("http://127.0.0.1:9/b/k", 404, {}, SimpleNamespace(stream=lambda: iter(())))

    environment = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    for name, value in (environment | setting).items():
        monkeypatch.setenv(name, value)
    s3._client.cache_clear()
    monkeypatch.setattr(s3.client()._endpoint.http_session, "send", send)
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(s3_patience, "time", SimpleNamespace(monotonic=lambda: now_s))

    if waited_s >= down_s:
        assert not storage.exists("s3://b/k")
    else:
        with pytest.raises(StorageError, match="does not answer"):
            storage.exists("s3://b/k")
    assert waited_s <= now_s < waited_s + 3
    said = f"does not answer; it is asked for {s3_patience.OUTAGE_S:.0f} s"
    assert sum(said in sentence for sentence in told) == bool(waited_s), "once"
    with s3_patience.impatient(), pytest.raises(StorageError):
        now_s = -1.0
        storage.exists("s3://b/k")
    assert now_s < 2
