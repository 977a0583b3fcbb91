"""One process at a time on a folder, local or of an S3 store: one contract."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskhand import lease, storage
from maskhand.cluster.checkpoints import Checkpoints
from maskhand.cluster.rank_store import RankStore, Seat
from maskhand.config import EngineConfig
from maskhand.lease import ensure_held, leased
from maskhand.lock import LockedError
from support.s3_server import run_places

STALE_S = 4.0
HOLD = """
import sys, time
from maskhand import lease
clock_s = time.time
if sys.argv[2] == "with a wrong clock":
    time.time = lambda: clock_s() - 7200
lease.RENEWED_S = 0.3
if sys.argv[2] != "here":
    lease._machine = lambda: "another machine"
with lease.leased(sys.argv[1], "run x"):
    print("in", flush=True)
    input()
"""


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Name of a run -> the URI of its folder."""
    with run_places(request.param, tmp_path_factory.mktemp("runs")) as uri_of:
        yield uri_of


@pytest.fixture
def uri(places: Callable[[str], str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "RENEWED_S", 0.3)
    monkeypatch.setattr(lease, "STALE_S", STALE_S)
    return places("".join(c if c.isalnum() else "-" for c in request.node.name))


def hold(uri: str, where: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, uri, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


@pytest.mark.parametrize("where", ["here", "elsewhere", "with a wrong clock"])
def test_the_second_is_told_who_is_at_it_and_one_that_was_killed_holds_nothing_for_long(uri: str, where: str) -> None:
    for ending in ("end", "kill"):
        process = hold(uri, where)
        try:
            told = rf"run x: process {process.pid} on \S+ \(since 20.*\) is at it; wait"
            with pytest.raises(LockedError, match=told), leased(uri, "run x"):
                pass
            with leased(f"{uri}-2", "run y"):
                pass
        finally:
            if ending == "kill":
                process.kill()
            process.communicate("\n", timeout=60)
        since_s = time.monotonic()
        with leased(uri, "run x"):
            waited = time.monotonic() - since_s > STALE_S
            assert waited == (ending == "kill" and where != "here" and storage.is_remote(uri))
    assert storage.list_uris(uri) == []


def test_of_many_that_ask_at_once_one_is_in(uri: str) -> None:
    inside, most, refused = 0, 0, 0
    door = threading.Lock()

    def enter(_: int) -> None:
        nonlocal inside, most, refused
        try:
            with leased(uri, "run x"):
                with door:
                    inside += 1
                    most = max(most, inside)
                time.sleep(1)
                with door:
                    inside -= 1
        except LockedError:
            refused += 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(enter, range(4)))
    assert most == 1 and refused < 4


def test_who_stood_still_and_was_replaced_writes_nothing_more(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 60.0)
    with leased(uri, "run x") as claim:
        ensure_held(claim, "run x")
        if claim is None:
            return
        with (
            pytest.raises(LockedError, match="another process has taken over"),
            RankStore(uri, EngineConfig(), print, Seat(), claim=claim) as store,
        ):
            store.save(1, lambda folder: (folder / "weights").touch())
            store.save(2, lambda folder: storage.delete(claim))  # as whoever takes over does
            store.save(3, lambda folder: None)
        assert Checkpoints(uri).steps() == [1]
