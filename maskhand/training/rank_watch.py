"""Detection of stuck ranks: each rank records its activity, and a rank that times out reports which other is stuck."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed
from torch.distributed import distributed_c10d

from maskhand.errors import MaskhandError

_TIMED_OUT = re.compile(r"timed out|timeout", re.IGNORECASE)


class StuckRankError(MaskhandError, TimeoutError):
    """Another rank did not take part in a collective operation in time; restarting the group may help."""

    retryable = True


class RankWatch:
    """The activities of the process group's ranks, in its rendezvous store; does nothing for a single rank."""

    def __init__(self) -> None:
        self._rank, self._world = distributed.get_rank(), distributed.get_world_size()
        self._store = None
        if self._world > 1:
            self._store = distributed.PrefixStore("maskhand-watch", distributed_c10d._get_default_store())

    def note(self, step: int, doing: str) -> None:
        """Record that this rank is now `doing` something for step `step` (0-based)."""
        if self._store is not None:
            self._store.set(str(self._rank), f"{step}|{time.time():.3f}|{doing}")

    @contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """A context of collective work in step `step`: a timeout in it becomes a StuckRankError."""
        self.note(step, "computing")
        began_s = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, MaskhandError) or not _TIMED_OUT.search(str(error)):
                raise
            waited_s = time.monotonic() - began_s
            raise StuckRankError(
                f"rank {self._rank} waited {waited_s:.0f} s for the others in step {step + 1}: {self._slowest()} "
                "(engine.step_timeout_s)"
            ) from error

    def _slowest(self) -> str:
        """A description of what the rank that is furthest behind is doing, and since when."""
        if self._store is None:
            return "there is no other"
        behind: list[tuple[int, float, str]] = []
        for rank in range(self._world):
            if rank == self._rank:
                continue
            if not self._store.check([str(rank)]):
                return f"rank {rank} has not begun"
            step, since, doing = self._store.get(str(rank)).decode().split("|", 2)
            behind.append((int(step), float(since), f"rank {rank} is {doing} of step {int(step) + 1}"))
        _, since_s, what = min(behind)
        return f"{what} since {max(0.0, time.time() - since_s):.0f} s"
