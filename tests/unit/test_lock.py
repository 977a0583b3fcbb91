"""One process at a time, and a sentence about the other one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskhand import storage
from maskhand.lock import LockedError, held

HOLD = """
import pathlib, sys
from maskhand import lock
with lock.held(pathlib.Path(sys.argv[1]), sys.argv[2], "run x"):
    print("in", flush=True)
    input()
"""


def hold(folder: Path, name: str = "run") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    return process


@pytest.mark.parametrize("ending", ["end", "kill"])
def test_the_second_is_told_who_is_at_it(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "runs"
    process = hold(folder)
    try:
        told = rf"run x: process {process.pid} on \S+ \(since 20.*: -c .*\) is at it; wait"
        with pytest.raises(LockedError, match=told), held(folder, "run", "run x"):
            pass
        with held(folder, "another", "run y"):
            assert storage.list_uris(folder) == [], "a lock is nobody's file"
    finally:
        if ending == "kill":
            process.kill()
        process.communicate("\n", timeout=60)
    for _ in range(2):
        with held(folder, "run", "run x"):
            pass
    assert os.listdir(folder) == []


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    told = r"file/runs: nothing can be written here \(not a directory\)"
    with pytest.raises(storage.StorageError, match=told), held(tmp_path / "file" / "runs", "run", "run x"):
        pass


def test_a_second_quickstart_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    process = hold(tmp_path, "quickstart")
    command = [sys.executable, "-X", "importtime", "-m", "maskhand.cli", "quickstart", "-w", str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120)
    process.communicate("\n", timeout=60)
    assert second.returncode == 1 and f"the quickstart in {tmp_path}: process {process.pid} on" in second.stderr
    loaded = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines() if line.startswith("import time:")}
    assert "maskhand.lock" in loaded and not loaded & {"prefect", "ray", "torch", "mlflow"}
