"""Checkpoints in a folder and in an S3 store: one contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from maskhand import storage
from maskhand.cluster.checkpoints import Checkpoints, LastCheckpoint
from maskhand.cluster.rank_store import RankStore, Seat
from maskhand.config import EngineConfig
from maskhand.storage import StorageError
from support.s3_server import run_places


@pytest.fixture(scope="module", params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Name of a run -> the URI of its checkpoints."""
    with run_places(request.param, tmp_path_factory.mktemp("runs")) as uri_of:
        yield uri_of


@pytest.fixture
def uri(places: Callable[[str], str], request: pytest.FixtureRequest) -> str:
    return places("".join(c if c.isalnum() else "-" for c in request.node.name))


class Ranks:
    """A run of some ranks, as threads, and what it told."""

    def __init__(self, uri: str, world: int, **engine: int) -> None:
        self.notes: list[str] = []
        self._values: list[Any] = [None] * world
        self._barrier = threading.Barrier(world, timeout=60)
        settings = EngineConfig(**engine)
        self._stores = [
            RankStore(uri, settings, self.notes.append, Seat(rank, world, rank // 2, rank % 2), self._gather_of(rank))
            for rank in range(world)
        ]

    def _gather_of(self, rank: int) -> Callable[[Any], list[Any]]:
        def gather(value: Any) -> list[Any]:
            self._values[rank] = value
            self._barrier.wait()
            found = list(self._values)
            self._barrier.wait()
            return found

        return gather

    def __enter__(self) -> Ranks:
        self._open = ExitStack()
        for store in self._stores:
            self._open.enter_context(store)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def save(self, step: int, error_mm: float | None = None, rank: int | None = None) -> None:
        """All ranks' parts, or those of one alone."""
        for number, store in enumerate(self._stores):
            if rank in (None, number):
                store.save(step, lambda folder, number=number: _write(folder, step, number), error_mm)

    def latest(self) -> tuple[str, int] | None:
        """Content of rank 1's file as every rank reads it, and the number of files; None where nothing is kept."""
        with ThreadPoolExecutor(len(self._stores)) as threads:
            found = set(threads.map(_read, self._stores))
        (one,) = found
        return one


def _write(folder: Path, step: int, rank: int) -> None:
    (folder / "state").mkdir()
    (folder / "state" / f"rank-{rank}.pt").write_text(f"step {step} of rank {rank}")
    if rank == 0:
        (folder / "export").mkdir()
        (folder / "export" / "bundle.json").write_text(f"made in step {step}")


def _read(store: RankStore) -> tuple[str, int] | None:
    with store.latest() as folder:
        if folder is None:
            return None
        files = [p for p in folder.rglob("*.*") if p.is_file() and not p.name.startswith("part-")]
        return max(folder.glob("state/*")).read_text(), len(files)


def _damage(uri: str, step: int, name: str, change: Callable[[bytes], bytes]) -> None:
    place = storage.join(uri, f"step-{step:09d}", name)
    storage.write_bytes_atomic(place, change(storage.read_bytes(place)))


DAMAGES: dict[str, tuple[Callable[[str], None], str]] = {
    "truncated": (lambda uri: _damage(uri, 8, "state/rank-1.pt", lambda b: b[:-4]), "rank-1.pt has 12 bytes of 16"),
    "altered": (lambda uri: _damage(uri, 8, "state/rank-1.pt", lambda b: b"x" + b[1:]), "sha256 of state/rank-1.pt"),
    "lost": (lambda uri: storage.delete(f"{uri}/step-000000008/state/rank-0.pt"), "state/rank-0.pt is missing"),
    "half": (lambda uri: storage.delete(f"{uri}/step-000000008/part-00001.json"), "1 of 2 workers came to the end"),
    "no record": (lambda uri: _damage(uri, 8, "part-00000.json", lambda b: b[:9]), "part-00000.json cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint_that_is_not_whole_is_told_and_the_one_before_used(kind: str, uri: str) -> None:
    with Ranks(uri, world=2) as ranks:
        assert ranks.latest() is None and ranks.notes == []
        for step in (4, 8):
            ranks.save(step)
    damage, why = DAMAGES[kind]
    damage(uri)
    with Ranks(uri, world=2) as ranks:
        assert ranks.latest() == ("step 4 of rank 1", 3)
        (note,) = ranks.notes
        assert note.startswith("the checkpoint of step 8 is not whole: ") and note.endswith("; that of step 4 is used")
        assert why in note
        ranks.save(8)  # the training comes by again
    with Ranks(uri, world=2) as ranks:
        assert ranks.latest() == ("step 8 of rank 1", 3) and ranks.notes == []
    _damage(uri, 4, "state/rank-0.pt", bytes.upper)
    _damage(uri, 8, "export/bundle.json", bytes.upper)
    with Ranks(uri, world=2) as ranks:
        assert ranks.latest() is None
        assert [note.partition("; ")[2] for note in ranks.notes] == ["the training begins anew"] * 2
    assert storage.list_uris(uri) == []


def test_other_ranks_read_what_some_have_written(uri: str) -> None:
    with Ranks(uri, world=2) as ranks:
        ranks.save(4)
    assert Checkpoints(uri).last() == LastCheckpoint(step=4, workers=2)
    with Ranks(uri, world=3) as ranks:  # on two machines
        assert ranks.latest() == ("step 4 of rank 1", 3)
        ranks.save(8)
    with Ranks(uri, world=3) as ranks:
        assert ranks.latest() == ("step 8 of rank 2", 4)


def test_the_newest_and_the_best_are_kept(uri: str, tmp_path: Path) -> None:
    errors_mm = {2: 9.0, 4: 7.0, 6: 8.0, 8: None, 10: 7.5, 12: 9.5, 14: 9.9}
    with Ranks(uri, world=1, keep_checkpoints=2, keep_best=2) as ranks:
        for step, error_mm in errors_mm.items():
            ranks.save(step, error_mm)
    kept = Checkpoints(uri)
    assert kept.whole_steps() == [14, 12, 10, 4] == kept.steps()
    kept.fetch(14, tmp_path, "export")
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == ["export/bundle.json"]
    with Ranks(uri, world=2, keep_checkpoints=1) as ranks:
        ranks.save(16, rank=0)
    assert kept.steps() == [16, 14], "what is not whole yet replaces nothing"


def test_a_training_waits_for_one_checkpoint_at_a_time_and_survives_one_that_is_lost(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes, put, broken = threading.Event(), storage.move_in, [False]

    def slowly(source: Path, target: str) -> None:
        assert goes.wait(60)
        if broken[0]:
            raise StorageError(f"{target}: the store does not answer")
        put(source, target)

    monkeypatch.setattr(storage, "move_in", slowly)
    with Ranks(uri, world=1) as ranks:
        ranks.save(2)
        assert Checkpoints(uri).steps() == [], "it is not in place yet, and the training goes on"
        second = threading.Thread(target=ranks.save, args=(4,))
        second.start()
        second.join(0.2)
        assert second.is_alive(), "the next one waits for it"
        goes.set()
        second.join(60)
    assert Checkpoints(uri).whole_steps() == [4, 2]
    with Ranks(uri, world=1) as ranks:
        broken[0] = True
        ranks.save(6)
        ranks._stores[0]._moving[1].exception(60)  # type: ignore[index]
        broken[0] = False
        ranks.save(8)
    (note,) = ranks.notes
    assert note.startswith("the checkpoint of step 6 was not kept (") and note.endswith("; the training goes on")
    assert Checkpoints(uri).whole_steps() == [8, 4]
    broken[0] = True
    with pytest.raises(StorageError, match="does not answer"), Ranks(uri, world=1) as ranks:
        ranks.save(10)
    assert Checkpoints(uri).last() == LastCheckpoint(8, 1)
