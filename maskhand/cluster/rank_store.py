"""The checkpoint store of one rank: files are moved in the background, and only complete checkpoints are resumed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed

from maskhand import storage
from maskhand.cluster.checkpoints import Checkpoints, DamagedError
from maskhand.config import EngineConfig
from maskhand.disk import full_disk_told
from maskhand.errors import MaskhandError
from maskhand.lease import ensure_held
from maskhand.lock import LockedError
from maskhand.storage import StorageError

Gather = Callable[[Any], list[Any]]
"""All-gather of one small value per rank, in rank order; all ranks call it together."""


@dataclass(frozen=True)
class Seat:
    """The position of this process among the workers."""

    rank: int = 0
    world: int = 1
    node: int = 0
    """Number of its machine."""
    place: int = 0
    """Its local rank on this machine."""


@dataclass(frozen=True)
class _Answer:
    """The result of one rank's part of a joint operation."""

    value: Any = None
    damage: str | None = None
    """What is wrong with the checkpoint."""
    failure: str | None = None
    """Why this rank could not read it."""


class RankStore:
    """A `CheckpointStore`, and a context that ends when the last checkpoint is stored.

    The written files are moved by a thread, one checkpoint at a time: the next one waits for it. If a checkpoint cannot
    be stored this is noted and the training continues; only for the last one, StorageError is raised at the end. On
    rank 0 the thread also deletes old checkpoints. note: reports a sentence to people. claim: see `lease`; once another
    process has taken it, nothing more is stored, and `save` raises LockedError.
    """

    def __init__(
        self,
        uri: str,
        engine: EngineConfig,
        note: Callable[[str], None],
        seat: Seat,
        gather: Gather | None = None,
        claim: str | None = None,
    ) -> None:
        self._checkpoints, self._engine, self._note, self._seat = Checkpoints(uri), engine, note, seat
        self._gather, self._claim = gather or _gather, claim
        self._thread = ThreadPoolExecutor(1, "maskhand-checkpoint")
        self._moving: tuple[int, Future[None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        moving, self._moving = self._moving, None
        if moving is not None and (failed := moving[1].exception()) is not None and error is None:
            raise failed
        self._thread.shutdown()

    def save(self, step: int, write: Callable[[Path], None], error_mm: float | None = None) -> None:
        if self._moving is not None and (failed := self._moving[1].exception()) is not None:
            if isinstance(failed, LockedError):
                raise failed
            self._note(f"the checkpoint of step {self._moving[0]} was not kept ({failed}); the training goes on")
        folder = self._staging()
        with full_disk_told(folder):
            write(folder)
        self._moving = step, self._thread.submit(self._move, step, folder, error_mm)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The newest complete checkpoint; later, incomplete ones are noted and deleted."""
        folder, passed = None, list[str]()
        for step in self._together(self._checkpoints.steps)[0].value:
            answers = self._together(partial(self._taken, step))
            damage = next((answer.damage for answer in answers if answer.damage is not None), None)
            if damage is None:
                folder = next(a.value[1] for a in answers if a.value[0] == self._seat.node and a.value[1] is not None)
                self._tell(passed, f"that of step {step} is used")
                break
            passed.append(f"the checkpoint of step {step} is not whole: {damage}")
            self._dismiss(answers)
            self._together(partial(self._remove, step))
        else:
            self._tell(passed, "the training begins anew")
        yield folder
        if folder is not None and self._is_remote:
            self._gather(None)  # wait until all ranks have read it
            if self._seat.place == 0:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _is_remote(self) -> bool:
        return storage.is_remote(self._checkpoints.uri)

    def _staging(self) -> Path:
        """An empty folder; for a local run on the same file system, where moving a file is a rename."""
        if self._is_remote:
            return Path(tempfile.mkdtemp(prefix="maskhand-checkpoint-"))
        folder = Path(self._checkpoints.uri) / f".rank-{self._seat.rank:05d}"
        shutil.rmtree(folder, ignore_errors=True)  # may be left from a killed process
        folder.mkdir(parents=True)
        return folder

    def _move(self, step: int, folder: Path, error_mm: float | None) -> None:
        try:
            ensure_held(self._claim, self._checkpoints.uri)
            self._checkpoints.put(step, self._seat.rank, self._seat.world, folder, error_mm)
            if self._seat.rank == 0:
                self._checkpoints.prune(self._engine.keep_checkpoints, self._engine.keep_best)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _taken(self, step: int) -> tuple[int, Path | None]:
        """Number of this machine, and the checkpoint's folder on it (None from ranks that do not provide it). All ranks
        verify a local checkpoint together; one rank per machine downloads a remote one. Raises DamagedError."""
        if not self._is_remote:
            return self._seat.node, self._checkpoints.check(step, self._seat.rank, self._seat.world)
        if self._seat.place:
            return self._seat.node, None
        folder = Path(tempfile.mkdtemp(prefix="maskhand-checkpoint-"))
        try:
            self._checkpoints.fetch(step, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._seat.node, folder

    def _dismiss(self, answers: list[_Answer]) -> None:
        """Delete this rank's download of a checkpoint that another rank found damaged."""
        mine = answers[self._seat.rank].value
        if mine is not None and mine[1] is not None and self._is_remote:
            shutil.rmtree(mine[1], ignore_errors=True)

    def _remove(self, step: int) -> None:
        if self._seat.rank == 0:
            self._checkpoints.delete(step)

    def _tell(self, passed: list[str], what_then: str) -> None:
        if self._seat.rank == 0:
            for sentence in passed:
                self._note(f"{sentence}; {what_then}")

    def _together(self, work: Callable[[], Any]) -> list[_Answer]:
        """The results of `work` on all ranks. Raises StorageError on all ranks if one of them failed."""
        try:
            mine = _Answer(work())
        except DamagedError as error:
            mine = _Answer(damage=str(error))
        except MaskhandError as error:
            mine = _Answer(failure=str(error))
        answers: list[_Answer] = self._gather(mine)
        if (failure := next((answer.failure for answer in answers if answer.failure is not None), None)) is not None:
            raise StorageError(failure)
        return answers


def _gather(value: Any) -> list[Any]:
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
