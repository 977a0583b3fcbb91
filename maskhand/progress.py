"""Progress of long work: one callback, shown as a bar on a terminal and as a few plain lines elsewhere.

Library functions take a `Progress` and know nothing of terminals; `shown` makes one for the command line and the
flows. Tables for people are printed here too, so that `rich` stays in one place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Protocol

from maskhand.errors import without_passwords

PLAIN_LINE_EVERY_S = 15.0
"""Without a terminal, a line at most this often: logs stay readable, and silence never looks like a hang."""


class Progress(Protocol):
    """Called by long work as often as it likes."""

    def __call__(self, done: float, total: float, text: str = "") -> None:
        """`done` of `total` units (0: nobody knows) are finished; `text`: what is going on, in a few words."""


def silent(done: float, total: float, text: str = "") -> None:
    """The Progress that shows nothing."""


@contextmanager
def shown(title: str, stream: IO[str] | None = None) -> Iterator[Progress]:
    """Show a Progress called `title` on `stream` (stderr): a bar on a terminal, plain lines elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty():
        with _bar(title, stream) as progress:
            yield progress
    else:
        yield plain_lines(title, stream)


@contextmanager
def _bar(title: str, stream: IO[str]) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[text]}"),
    )
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        task = bars.add_task(title, total=None, text="")

        def progress(done: float, total: float, text: str = "") -> None:
            bars.update(task, completed=done, total=total or None, text=text)

        yield progress


def plain_lines(
    title: str, stream: IO[str], every_s: float = PLAIN_LINE_EVERY_S, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """A Progress of plain lines, at most one per `every_s` seconds; the last unit is always shown."""
    last_s = clock()
    finished = False

    def progress(done: float, total: float, text: str = "") -> None:
        nonlocal last_s, finished
        now_s, at_end = clock(), 0 < total <= done
        if (at_end and finished) or (not at_end and now_s - last_s < every_s):
            return
        last_s, finished = now_s, at_end
        share = f"{done:g}/{total:g} {100 * done / total:3.0f} % " if total else ""
        print(f"  {title}: {share}{text}".rstrip(), file=stream, flush=True)

    return progress


def both(first: Progress, second: Progress) -> Progress:
    """One Progress that calls two."""

    def progress(done: float, total: float, text: str = "") -> None:
        first(done, total, text)
        second(done, total, text)

    return progress


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], stream: IO[str] | None = None
) -> None:
    """Print a small table; a cell of `ok`, `warn` or `fail` is colored on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    stream = stream or sys.stdout
    # Without a terminal rich assumes 80 columns; a log line may be longer.
    console = Console(file=stream, width=None if stream.isatty() else 140)
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(without_passwords(str(cell)), style=styles.get(str(cell), "")) for cell in row))
    console.print(table)


def print_facts(title: str, facts: Sequence[tuple[str, str]], stream: IO[str] | None = None) -> None:
    """Print names and values line by line, never folded: paths and commands stay whole, to be copied."""
    width = max(len(name) for name, _ in facts)
    print(
        title,
        *(f"  {name:<{width}}  {without_passwords(value)}" for name, value in facts),
        sep="\n",
        file=stream or sys.stdout,
        flush=True,
    )
