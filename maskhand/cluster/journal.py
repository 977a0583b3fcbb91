"""The lines that workers write to their run's folder: metrics, starts, notes for people.

The folder is the driver's. If workers share it they append to its files; with checkpoints in an object store nothing is
shared, and the lines are sent through Ray to an actor on the driver's machine, which ends with the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskhand.cluster.run_folder import truncate_incomplete_line

_LONGEST_S = 60.0
"""Timeout for sending the last lines to the driver."""


class Journal(Protocol):
    """A destination for lines; picklable."""

    def append(self, name: str, line: str) -> None:
        """Add a line to the file `name` of the run's folder."""

    def close(self) -> None:
        """Wait until all lines are written."""


class SharedFolder:
    """A journal in a folder that this process can access."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._mended: set[str] = set()

    def append(self, name: str, line: str) -> None:
        path = self._run_dir / name
        if name not in self._mended:
            truncate_incomplete_line(path)
            self._mended.add(name)
        with path.open("a") as lines:
            lines.write(f"{line}\n")

    def close(self) -> None:
        pass


class ThroughRay:
    """A journal whose folder is on another machine."""

    def __init__(self, folder: Any) -> None:
        """folder: an actor that is a `SharedFolder`."""
        self._folder = folder
        self._last: Any = None

    def append(self, name: str, line: str) -> None:
        self._last = self._folder.append.remote(name, line)

    def close(self) -> None:
        if self._last is not None:
            ray.get(self._last, timeout=_LONGEST_S)


@contextmanager
def journal_of(run_dir: Path, shared: bool) -> Iterator[Journal]:
    """The journal for the workers of a run. shared: they can access its folder. Needs a Ray session."""
    if shared:
        yield SharedFolder(run_dir)
        return
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(SharedFolder)
    folder = actor.options(num_cpus=0, scheduling_strategy=here).remote(run_dir)
    try:
        yield ThroughRay(folder)
    finally:
        ray.kill(folder)
