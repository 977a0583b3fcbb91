"""The paper's value, ours, the gap, what differs, the later state of the art and the orderings of rows.

For people as text, for machines as JSON.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from maskhand.paper.orderings import Ordering, difference_text, higher_is_better, sentences, values_of
from maskhand.paper.tables import Joints, LaterResult, PaperRow, PaperTable, TableName, benchmark_title, later_results
from maskhand.scoring.benchmarks import benchmark_sets

COLUMNS = ("row", "benchmark", "metric", "paper", "ours", "gap", "best later", "notes")
ORDERING_COLUMNS = ("row minus base", "benchmark", "metric", "paper", "ours", "95 % interval", "ordering")


@dataclass(frozen=True)
class Line:
    """One number of the paper and what became of it."""

    row: str
    """Its id and label."""
    benchmark: str
    metric: str
    paper: float | None
    values: tuple[float, ...]
    """Ours, by seed; empty: not run, `missing` says why."""
    protocol: tuple[str, ...]
    """What is unknown or different."""
    missing: tuple[str, ...]
    later: tuple[tuple[str, float], ...]
    """(method and source, value), the best first."""

    @property
    def ours(self) -> float | None:
        """The mean over the seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def gap(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper


@dataclass(frozen=True)
class Comparison:
    """One table of the paper, reproduced."""

    name: TableName
    title: str
    setting: str
    """On what it was run: full size, or the embedded benchmark with its steps and seeds."""
    lines: tuple[Line, ...]
    orderings: tuple[Ordering, ...] = ()

    @property
    def heading(self) -> str:
        return f"Table {self.name}: {self.title}" if isinstance(self.name, int) else self.title

    def to_json(self) -> bytes:
        values = asdict(self)
        for line, entry in zip(self.lines, values["lines"], strict=True):
            entry |= {"ours": line.ours, "spread": line.spread, "gap": line.gap}
            entry["higher_is_better"] = higher_is_better(line.metric)
        for ordering, entry in zip(self.orderings, values["orderings"], strict=True):
            entry |= {"mean": ordering.mean, "spread": ordering.spread, "interval": ordering.interval}
            entry["verdict"] = ordering.verdict
        return (json.dumps(values, indent=1) + "\n").encode()

    def cells(self) -> tuple[list[list[str]], list[str]]:
        """The rows of the table under COLUMNS, and its numbered notes."""
        notes: list[str] = []

        def number(note: str) -> str:
            if note not in notes:
                notes.append(note)
            return str(notes.index(note) + 1)

        rows = []
        for line in self.lines:
            marks = ", ".join(number(note) for note in line.protocol)
            best = f"{value_text(line.later[0][1], line.metric)} {line.later[0][0]}" if line.later else ""
            ours = "missing" if line.missing else value_text(line.ours, line.metric)
            ours += "" if line.spread is None else f" ± {line.spread:.2g}"
            gap = "" if line.gap is None else difference_text(line.gap)
            paper = value_text(line.paper, line.metric)
            rows.append([line.row, line.benchmark, line.metric, paper, ours, gap, best, marks])
        return rows, notes

    def missing_data(self) -> list[tuple[str, list[str]]]:
        """(Benchmarks, what rows measured on them lack): each sentence once, with all the benchmarks that lack it."""
        lacking: dict[str, dict[str, None]] = {}
        for line in self.lines:
            for sentence in line.missing:
                lacking.setdefault(sentence, {})[line.benchmark] = None
        groups: dict[str, list[str]] = {}
        for sentence, benchmarks in lacking.items():
            groups.setdefault(", ".join(benchmarks), []).append(sentence)
        return list(groups.items())

    def ordering_cells(self) -> list[list[str]]:
        """Rows under ORDERING_COLUMNS."""
        rows = []
        for o in self.orderings:
            interval = "–" if o.interval is None else " to ".join(map(difference_text, o.interval))
            paper = "–" if o.paper is None else difference_text(o.paper)
            ours = difference_text(o.mean) + ("" if o.spread is None else f" ± {o.spread:.2g}")
            rows.append([f"{o.row} − {o.base}", o.benchmark, o.metric, paper, ours, interval, o.verdict])
        return rows

    def to_markdown(self, level: int = 1) -> str:
        """level: of the heading."""
        rows, notes = self.cells()
        lines = [
            f"{'#' * level} {self.heading}",
            "",
            self.setting,
            "",
            *_markdown_table(COLUMNS, "lllrrrll", rows),
            "",
            *(f"{k}. {note}" for k, note in enumerate(notes, 1)),
        ]
        for benchmarks, lacks in self.missing_data():
            lines += ["", f"Missing data, {benchmarks}:", "", *(f"* {sentence}" for sentence in lacks)]
        if self.orderings:
            lines += ["", *_markdown_table(ORDERING_COLUMNS, "lllrrrl", self.ordering_cells())]
            lines += ["", *(f"* {sentence}" for sentence in sentences(self.orderings, "**"))]
        return "\n".join(lines) + "\n"


def _markdown_table(columns: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join({"l": "---", "r": "---:"}[side] for side in align)
    return ["| " + " | ".join(columns) + " |", f"|{rule}|", *("| " + " | ".join(row) + " |" for row in rows)]


def lines_of(
    table: PaperTable,
    row: PaperRow,
    measured: Mapping[int, Mapping[str, Mapping[str, float]]],
    missing: Mapping[str, Sequence[str]],
    remarks: Sequence[str] = (),
) -> list[Line]:
    """The lines of one row.

    measured: seed -> benchmark -> metric -> value; missing: by benchmark; remarks: what this run adds to the protocol.
    """
    lines = []
    for benchmark, values in row.paper.items():
        known = benchmark_sets().get(benchmark)
        notes = tuple(filter(None, (row.protocol, table.note, known.benchmark.protocol if known else "", *remarks)))
        for metric, paper in zip(table.metrics_of(row), values, strict=True):
            ours = tuple(values_of(measured, benchmark, metric).values())
            later = best_later(benchmark, metric, row.joints if row.measure == "pck" else None)
            absent = tuple(missing.get(benchmark, ()))
            lines.append(Line(row.name, benchmark_title(benchmark), metric, paper, ours, notes, absent, later))
    return lines


def best_later(benchmark: str, metric: str, joints: Joints | None) -> tuple[tuple[str, float], ...]:
    """(method and source, value) of everyone who reported the metric, the best first."""
    entries: Iterable[LaterResult] = later_results().get(benchmark, ())
    found = [
        (f"{e.method} ({e.source}{', quoted' if e.quoted else ''})", e.values[metric])
        for e in entries
        if metric in e.values and e.joints == joints
    ]
    return tuple(sorted(found, key=lambda entry: entry[1], reverse=higher_is_better(metric)))


def value_text(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    if metric.endswith("_m2"):
        return f"{value:.2e}"
    if metric.endswith("_m"):
        return f"{value:.4f}"
    is_coarse = metric.endswith(("_mm", "percent")) or metric.startswith("pck")
    return f"{value:.2f}" if is_coarse else f"{value:.3f}"
