"""The database of a Prefect server of ours, looked at before the server starts: it would fail with pages, after
minutes. This module must not import Prefect, like `runtime`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
from pathlib import Path

from maskhand.errors import MaskhandError, without_passwords

_VARIABLES = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
_WAIT_S = 10.0


class DatabaseError(MaskhandError, RuntimeError):
    """A database that a Prefect server could not use; the message says what to do."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


def described(home: Path) -> str:
    """Words for the database of a server whose PREFECT_HOME is `home`."""
    for name in _VARIABLES:
        if url := os.environ.get(name):
            return without_passwords(f"{name}={url}")
    return str(home / "prefect.db")


def check_database(home: Path) -> None:
    """Raises DatabaseError for a database file in `home` that is damaged, held by another program, or of a newer
    Prefect; one at another address is not looked at."""
    file = home / "prefect.db"
    if any(os.environ.get(name) for name in _VARIABLES) or not file.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            has_version = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            found = database.execute("SELECT version_num FROM alembic_version").fetchone() if has_version else None
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        is_held = "locked" in str(error)
        advice = "end the program that holds it" if is_held else _move(file)
        raise DatabaseError(
            f"Prefect's database {file} cannot be used ({error}); {advice}", retryable=is_held
        ) from error
    known = _known_versions()
    if found is not None and known and found[0] not in known:
        raise DatabaseError(
            f"Prefect's database {file} was made by a newer version of Prefect than the installed one; install that "
            f"version, or {_move(file)}"
        )


def _move(file: Path) -> str:
    return f"move it away for a new one, with {file.name}-wal and {file.name}-shm where they are"


def _known_versions() -> set[str]:
    """Those of the installed Prefect's SQLite databases; empty where they are kept elsewhere than expected."""
    spec = importlib.util.find_spec("prefect")
    roots = [] if spec is None else spec.submodule_search_locations or []
    files = (file for root in roots for file in Path(root, "server/database/_migrations/versions/sqlite").glob("*.py"))
    lines = (re.search(r"^revision\b[^=\n]*= *[\"'](\w+)", file.read_text(), re.MULTILINE) for file in files)
    return {line[1] for line in lines if line}
