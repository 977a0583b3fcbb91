"""A result's commit is that of our source, not of a repository around an installation of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from maskhand import provenance


def test_the_commit_is_of_the_repository_that_has_our_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        call = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *words]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    own = tmp_path / "lib" / "provenance.py"
    own.parent.mkdir()
    own.touch()
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "of the project that we are installed in")
    monkeypatch.setattr(provenance, "__file__", str(own))
    assert provenance.git_sha.__wrapped__() == "unknown"
    git("add", ".")
    git("commit", "--quiet", "-m", "ours")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "of-a-hook"))
    sha = provenance.git_sha.__wrapped__()
    monkeypatch.delenv("GIT_DIR")
    assert sha == git("rev-parse", "HEAD")
