"""The checkpoints of a training run, in a local folder or `s3://` prefix, verified for completeness when read.

    RUN/step-000000012/checkpoint/rank-00000.pt, ...   the files of all ranks
    RUN/step-000000012/part-00000.json                 each rank's record, written last: its files with bytes and sha256

A checkpoint is complete if every rank's record exists and every file is as recorded. So ranks need no coordination
while writing: the reader detects what a lost process, a full disk or a broken upload left incomplete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from maskhand import storage
from maskhand.errors import MaskhandError

_STEP = re.compile(r"step-(\d{9})")


class DamagedError(MaskhandError, ValueError):
    """A checkpoint that is not complete; the message says what is missing or altered."""


@dataclass(frozen=True)
class Part:
    """The record of one rank's files of a checkpoint."""

    step: int
    workers: int
    """Number of ranks that write this checkpoint."""
    error_mm: float | None
    """Validation error of the checkpoint's weights, millimeters; None: they were not validated."""
    files: Mapping[str, tuple[int, str]]
    """Name within the checkpoint -> bytes, sha256."""


@dataclass(frozen=True)
class LastCheckpoint:
    """The newest complete checkpoint of an unfinished run."""

    step: int
    workers: int
    """Number of workers that wrote it."""


class Checkpoints:
    """The checkpoints of one run, below `uri`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._known: dict[int, tuple[Part, ...]] = {}
        """Parts of the checkpoints that were found complete."""

    def put(self, step: int, rank: int, workers: int, folder: Path, error_mm: float | None = None) -> None:
        """Move the files that `rank` wrote into a local `folder` into the checkpoint of `step`. Raises StorageError."""
        self._known.pop(step, None)
        files: dict[str, tuple[int, str]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            files[name] = (path.stat().st_size, storage.sha256(path))
            storage.move_in(path, storage.join(self._of(step), name))
        storage.write_json_atomic(self._record(step, rank), asdict(Part(step, workers, error_mm, files)))

    def steps(self) -> list[int]:
        """The steps of all checkpoints, complete or not, the newest first."""
        names = storage.list_folders(self.uri)
        if storage.is_remote(self.uri):  # some stores keep folders after all their files were removed
            names = [uri.removeprefix(f"{self.uri}/").partition("/")[0] for uri in storage.list_uris(self.uri)]
        return sorted({int(match[1]) for match in map(_STEP.fullmatch, names) if match}, reverse=True)

    def parts(self, step: int) -> tuple[Part, ...]:
        """The records of all ranks. Raises DamagedError if a record or file is missing, or a file has another size;
        file contents are not read."""
        if step in self._known:
            return self._known[step]
        there = storage.list_sizes(self._of(step))
        parts = [self._read(step, rank) for rank in range(self._written_by(step, there))]
        for part in parts:
            for name, (expected, _) in part.files.items():
                found = there.get(storage.join(self._of(step), name))
                if found is None:
                    raise DamagedError(f"{name} is missing")
                if found != expected:
                    raise DamagedError(f"{name} has {found:,} bytes of {expected:,}")
        self._known[step] = tuple(parts)
        return self._known[step]

    def whole_steps(self) -> list[int]:
        """The steps of the checkpoints that are complete by `parts`, the newest first."""
        return [step for step in self.steps() if self._is_whole(step)]

    def last(self) -> LastCheckpoint | None:
        """The newest complete checkpoint; None if there is none."""
        whole = (step for step in self.steps() if self._is_whole(step))
        newest = next(whole, None)
        return None if newest is None else LastCheckpoint(newest, self.parts(newest)[0].workers)

    def check(self, step: int, share: int = 0, of: int = 1) -> Path:
        """The folder of a local checkpoint, after verifying the sha256 of its files share, share + of, ... Raises
        DamagedError."""
        for name, (_, expected) in self._files(step)[share::of]:
            if storage.sha256(storage.join(self._of(step), name)) != expected:
                raise _altered(name)
        return Path(self._of(step))

    def fetch(self, step: int, folder: Path, below: str = "") -> None:
        """Copy a checkpoint's files, or only those in its folder `below`, to a local folder. Raises DamagedError."""
        for name, (_, expected) in self._files(step):
            if name.startswith(below and f"{below}/"):
                target = folder / name
                if storage.copy_out(storage.join(self._of(step), name), target) != expected:
                    raise _altered(name)

    def delete(self, step: int) -> None:
        """Delete a checkpoint, its records first, so that a partly deleted one is never taken for complete."""
        self._known.pop(step, None)
        files = storage.list_uris(self._of(step))
        for uri in sorted(files, key=lambda uri: not uri.endswith(".json")):
            storage.delete(uri)
        if not storage.is_remote(self.uri):
            shutil.rmtree(self._of(step), ignore_errors=True)

    def prune(self, newest: int, best: int) -> None:
        """Delete old checkpoints, except the `newest` complete ones, later ones (being written), and the `best`."""
        whole = self.whole_steps()
        if len(whole) <= newest:
            return
        errors_mm = {step: error for step in whole if (error := self.parts(step)[0].error_mm) is not None}
        kept = {*whole[:newest], *sorted(errors_mm, key=errors_mm.__getitem__)[:best]}
        for step in self.steps():
            if step < whole[newest - 1] and step not in kept:
                self.delete(step)

    def _of(self, step: int) -> str:
        return storage.join(self.uri, f"step-{step:09d}")

    def _record(self, step: int, rank: int) -> str:
        return storage.join(self._of(step), f"part-{rank:05d}.json")

    def _is_whole(self, step: int) -> bool:
        try:
            return bool(self.parts(step))
        except DamagedError:
            return False

    def _files(self, step: int) -> list[tuple[str, tuple[int, str]]]:
        return sorted(item for part in self.parts(step) for item in part.files.items())

    def _written_by(self, step: int, there: Mapping[str, int]) -> int:
        """Number of ranks; DamagedError if some have not written their records."""
        ranks = [rank for rank in range(len(there)) if self._record(step, rank) in there]
        if not ranks:
            raise DamagedError("no worker came to the end of writing it")
        workers = self._read(step, ranks[0]).workers
        if ranks != list(range(workers)):
            raise DamagedError(f"{len(ranks)} of {workers} workers came to the end of writing it")
        return workers

    def _read(self, step: int, rank: int) -> Part:
        record = self._record(step, rank)
        try:
            found = json.loads(storage.read_bytes(record))
            files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in found["files"].items()}
            return Part(int(found["step"]), int(found["workers"]), found["error_mm"], files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"{Path(record).name} cannot be read ({type(error).__name__})") from error


def _altered(name: str) -> DamagedError:
    return DamagedError(f"the sha256 of {name} is not the recorded one")
