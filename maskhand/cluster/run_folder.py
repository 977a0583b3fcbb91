"""The folder of a training run: its identity, reported metrics and exported result.

It contains `run.json` (the identity, and what decides it), `metrics.jsonl` (a line per report), `starts.txt` (a line
per start of the workers), `notes.txt` (notes of the workers), the checkpoints unless stored elsewhere (see
`checkpoints`), and at the end `export/` (the training loop's export) and, last, `finished.json`.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskhand import storage
from maskhand.cluster.checkpoints import Checkpoints, DamagedError
from maskhand.errors import MaskhandError
from maskhand.kept_json import KeptFileError, read_kept
from maskhand.lease import leased
from maskhand.lock import held
from maskhand.training.worker import EXPORT

METRICS, STARTS, NOTES = "metrics.jsonl", "starts.txt", "notes.txt"
KEPT = "stopped"
"""Folder for the batches at which the training had to stop."""
_FINISHED = "finished.json"
_POLL_S = 0.25


class TrainingError(MaskhandError, RuntimeError):
    """A training run that cannot start or failed; the message says why and where its files are.

    retryable: another attempt may succeed, for example after lost workers.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class FitResult:
    """A finished run."""

    run_dir: Path
    export_dir: Path
    """The training loop's export: the tokenizer's files, or a model bundle."""
    metrics: dict[str, float]
    """The last reported metrics."""
    steps: int
    restarts: int
    """Number of restarts of the workers, after a lost worker or by another call."""
    seconds: float
    """Duration of this call."""
    reused: bool
    """True if the run had been finished before, so that nothing was trained."""


@dataclass(frozen=True)
class HeldRun:
    """A run that is locked for this process, see `held_run`."""

    run_dir: Path
    """Absolute."""
    checkpoints: Checkpoints
    claim: str | None
    """The claim on its checkpoints, see `lease.leased`; None if they need none."""


@contextmanager
def held_run(name: str, storage_path: str | Path, checkpoints: str | None = None) -> Iterator[HeldRun]:
    """A context in which only this process, of all machines, trains the run `name`.

    Two processes would write into one folder, and delete each other's checkpoints. Only files are used as locks, so a
    second process fails before it starts anything. storage_path: the folder of the runs; checkpoints: folder or
    `s3://bucket/prefix` of their checkpoints, None: `storage_path`. Raises LockedError (it says who trains the run),
    StorageError.
    """
    run_dir = Path(storage_path).resolve() / name
    kept = Checkpoints(storage.join(checkpoints or run_dir.parent, name))
    what = f"run {name}"
    with held(run_dir.parent, name, what):
        elsewhere = storage.is_remote(kept.uri) or Path(kept.uri).resolve() != run_dir
        writes = elsewhere and finished(run_dir) is None
        with leased(kept.uri, f"{what}, whose checkpoints are in {kept.uri}") if writes else nullcontext() as claim:
            yield HeldRun(run_dir, kept, claim)


def acquire(run_dir: Path, identity: str, decided_by: Mapping[str, str]) -> None:
    """Create the folder for this identity; TrainingError if it belongs to another one.

    decided_by: what the identity is a digest of, by name.
    """
    recorded = _recorded(run_dir)
    if recorded is None:
        run_dir.mkdir(parents=True, exist_ok=True)
        storage.write_json_atomic(run_dir / "run.json", {"identity": identity, "decided_by": dict(decided_by)})
    elif recorded["identity"] != identity:
        raise TrainingError(
            f"run {run_dir.name}: {run_dir} holds a run with other settings or data (identity {recorded['identity']}, "
            f"this one is {identity}); choose another name or delete the folder"
        )


def unfinished_beside(run_dir: Path, decided_by: Mapping[str, str]) -> str:
    """The difference of a new run from the latest unfinished one of the same kind and recipe; "" if there is none."""
    prefix = run_dir.name.rpartition("-")[0]
    others = [
        path for path in run_dir.parent.glob(f"{prefix}-*/run.json")
        if path.parent != run_dir and path.parent.name.rpartition("-")[0] == prefix
        and not (path.parent / _FINISHED).exists()
    ]  # fmt: skip
    if not others:
        return ""
    latest = max(others, key=lambda path: path.stat().st_mtime)
    try:
        before = (_recorded(latest.parent) or {}).get("decided_by", {})
    except KeptFileError as error:  # of another run, which is only told of
        return f"one that cannot be read: {error}"
    differs = [
        f"{name} was {before.get(name, 'not given')} and is {decided_by.get(name, 'not given')}"
        for name in sorted(before | dict(decided_by))
        if before.get(name) != decided_by.get(name)
    ]
    more = f", and {len(differs) - 3} more values differ" if len(differs) > 3 else ""
    return f"{latest.parent.name}, which is unfinished: {'; '.join(differs[:3])}{more}" if before else ""


def finished(run_dir: Path) -> dict[str, Any] | None:
    """The record that `finish` wrote; None while the run is unfinished, or where its export is gone: then it is made
    again from the last checkpoint. Raises KeptFileError."""
    if not ((run_dir / _FINISHED).exists() and (run_dir / EXPORT).is_dir()):
        return None
    remedy = "delete it, and the same training ends anew from its last checkpoint"
    return read_kept(run_dir / _FINISHED, remedy, steps=int, metrics=dict, restarts=int)


def finish(run_dir: Path, checkpoints: Checkpoints, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Copy the export from the last checkpoint, then write `finished.json`; returns its content."""
    last = checkpoints.last()
    if last is None:
        raise TrainingError(f"run {run_dir.name}: ended without a whole checkpoint in {checkpoints.uri}")
    fresh = run_dir / f".{EXPORT}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        checkpoints.fetch(last.step, fresh, EXPORT)
    except DamagedError as error:
        raise TrainingError(
            f"run {run_dir.name}: the checkpoint of step {last.step} in {checkpoints.uri} is not whole: {error}; "
            "the same command goes on from the one before",
            retryable=True,
        ) from error
    if not (fresh / EXPORT).is_dir():
        raise TrainingError(f"run {run_dir.name}: the last checkpoint in {checkpoints.uri} holds no {EXPORT}/ folder")
    shutil.rmtree(run_dir / EXPORT, ignore_errors=True)
    (fresh / EXPORT).rename(run_dir / EXPORT)
    fresh.rmdir()
    starts = (run_dir / STARTS).read_text().splitlines()
    facts = {"steps": last.step, "metrics": dict(metrics), "restarts": len(starts) - 1}
    storage.write_json_atomic(run_dir / _FINISHED, facts)
    return facts


@contextmanager
def tail(path: Path, on_line: Callable[[str], None]) -> Iterator[None]:
    """Call `on_line` in a thread for every line that is appended to `path` while the block runs."""
    ended = threading.Event()
    start = _complete_lines_bytes(path)

    def poll() -> None:
        position = start
        while True:
            last_poll = ended.is_set()
            if path.exists():
                with path.open() as lines:
                    lines.seek(position)
                    for line in iter(lines.readline, ""):
                        if not line.endswith("\n"):
                            break  # incomplete: the next poll reads it again
                        position += len(line.encode())
                        on_line(line.rstrip("\n"))
            if last_poll:
                return
            ended.wait(_POLL_S)

    thread = threading.Thread(target=poll, name="maskhand-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def result_of(run_dir: Path, facts: Mapping[str, Any], started_s: float, *, reused: bool) -> FitResult:
    """The result of a run. facts: as `finish` returns them; started_s: `time.monotonic()` when the call began."""
    return FitResult(
        run_dir=run_dir,
        export_dir=run_dir / EXPORT,
        metrics=facts["metrics"],
        steps=facts["steps"],
        restarts=facts["restarts"],
        seconds=time.monotonic() - started_s,
        reused=reused,
    )


def truncate_incomplete_line(path: Path) -> None:
    """Remove an incomplete last line, left by a killed process, so that the next line starts on its own."""
    if path.exists():
        os.truncate(path, _complete_lines_bytes(path))


def _complete_lines_bytes(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _recorded(run_dir: Path) -> dict[str, Any] | None:
    """`run.json`; None where there is no run. Raises KeptFileError."""
    if not (run_dir / "run.json").exists():
        return None
    return read_kept(run_dir / "run.json", f"delete the folder {run_dir} to train anew", identity=str, decided_by=dict)
