"""A workspace that was copied or moved: MLflow records where files are as absolute places, which are moved along."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
           ("model_versions", "source"), ("model_versions", "storage_location"))  # fmt: skip
"""Table and column of every place of files in MLflow's database."""


def follow_workspace(uri: str, artifacts: Path, experiment: str) -> None:
    """Correct the recorded places of a workspace's own database where its folder has another path than they say.

    uri: `sqlite:///...`; artifacts: the folder beside that database in which files are now. Nothing is done for a
    database elsewhere, and where that folder is missing: then the files did not come along.
    """
    database = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or database.parent != artifacts.parent or not database.is_file():
        return
    new = artifacts.resolve().as_uri()
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as store, store:
        if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'model_versions'").fetchone() is None:
            return  # MLflow has not made its tables yet
        found = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", [experiment]).fetchone()
        old = found[0] if found else None
        if old is None or old == new or local_path(old) is None or not artifacts.is_dir():
            return
        for table, column in _PLACES:
            store.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                [new, len(old) + 1, old, len(old) + 1, f"{old}/"],
            )
    logging.getLogger(__name__).warning(
        f"{database}: this workspace was moved or copied; files of its tracked runs and models that were recorded in "
        f"{local_path(old)} are now those in {artifacts}"
    )


def local_path(location: str) -> Path | None:
    """The folder that a recorded place names on this machine; None for one on a server or in a store."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(location) if location.startswith("/") else None
