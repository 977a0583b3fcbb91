"""Prefect's database is looked at before a server is started on it, without importing Prefect."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from maskhand.pipelines import database, runtime
from maskhand.pipelines.database import DatabaseError, check_database, described
from maskhand.pipelines.runtime import prepare
from maskhand.pipelines.server_log import reason_in
from maskhand.storage import StorageError
from maskhand.workspace import Workspace


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_WAIT_S", 0.1)
    for name in database._VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _made_by(home: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as file, file:
        file.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        file.execute("INSERT INTO alembic_version VALUES (?)", [version])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("damaged", r"prefect\.db cannot be used \(file is not a database\); move it away for a new one"),
        ("newer", r"by a newer version of Prefect than the installed one; install that version, or move it away"),
        ("held", r"cannot be used \(database is locked\); end the program that holds it"),
    ],
)
def test_a_database_that_cannot_serve_is_told(tmp_path: Path, fault: str, words: str) -> None:
    _made_by(tmp_path, "ffffffffffff" if fault == "newer" else max(database._known_versions()))
    if fault == "damaged":
        (tmp_path / "prefect.db").write_bytes(b"no database" * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "prefect.db", isolation_level=None)) as other:
        if fault == "held":
            other.execute("BEGIN EXCLUSIVE")
        began_s = time.monotonic()
        with pytest.raises(DatabaseError, match=words) as error:
            check_database(tmp_path)
    assert error.value.retryable is (fault == "held") and time.monotonic() - began_s < 5


def test_a_database_that_can_serve_or_is_yet_to_be_made_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_database(tmp_path)
    assert not list(tmp_path.iterdir()), "looking makes nothing"
    (tmp_path / "prefect.db").touch()
    check_database(tmp_path)
    _made_by(tmp_path, min(database._known_versions()))
    before = (tmp_path / "prefect.db").read_bytes()
    check_database(tmp_path)
    assert (tmp_path / "prefect.db").read_bytes() == before and described(tmp_path) == str(tmp_path / "prefect.db")
    (tmp_path / "prefect.db").write_bytes(b"not looked at")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://me:hidden@127.0.0.1/prefect")
    check_database(tmp_path)
    assert "postgresql+asyncpg://me:***@" in described(tmp_path)


def test_a_home_of_prefect_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.modules", {})  # other tests have imported Prefect
    monkeypatch.setattr(runtime, "settings", lambda *_: {})
    monkeypatch.setattr(runtime.machine, "settle", lambda: None)
    monkeypatch.setenv("PREFECT_HOME", "/proc/prefect")
    with pytest.raises(StorageError, match="/proc/prefect: nothing can be written here"):
        prepare(Workspace(tmp_path, str(tmp_path / "shards")))


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked\n", "database is locked"),
        ("ConnectionRefusedError: [Errno 111] Connect call failed\nStopped\n", "Connect call failed"),
        ("", "it says nothing"),
    ],
)
def test_the_reason_in_a_log_has_no_words_for_programmers(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "server.log").write_text("ValueError: of an earlier start\n" + log)
    assert reason_in(tmp_path / "server.log", len("ValueError: of an earlier start\n")) == words
