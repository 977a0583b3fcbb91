"""The paper's value, ours, the gap, what differs and the later state of the art, for people and for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from maskhand.tables.rows import Joints, LaterResult, PaperRow, PaperTable, catalogue, later_results

HIGHER_IS_BETTER = ("pa_f", "pa_auc", "pck", "apd")
"""Beginnings of the metrics where more is better."""

COLUMNS = ("row", "benchmark", "metric", "paper", "ours", "gap", "best later", "notes")


@dataclass(frozen=True)
class Line:
    """One number of the paper and what became of it."""

    row: str
    label: str
    benchmark: str
    metric: str
    paper: float | None
    ours: float | None
    """None: not run, `missing` says why."""
    protocol: tuple[str, ...]
    """What is unknown or different."""
    missing: tuple[str, ...]
    later: tuple[tuple[str, float], ...]
    """(method and source, value), the best first."""

    @property
    def gap(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None or self.paper is None else self.ours - self.paper


@dataclass(frozen=True)
class Comparison:
    """One table of the paper, reproduced."""

    number: int
    title: str
    setting: str
    """On what it was run: full size, or the embedded benchmark with its steps."""
    lines: tuple[Line, ...]

    def to_json(self) -> bytes:
        values = asdict(self)
        for line, entry in zip(self.lines, values["lines"], strict=True):
            entry["gap"] = line.gap
            entry["higher_is_better"] = higher_is_better(line.metric)
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
            marks = ", ".join(number(note) for note in (*(f"missing: {m}" for m in line.missing), *line.protocol))
            best = f"{value_text(line.later[0][1], line.metric)} {line.later[0][0]}" if line.later else ""
            ours = "missing" if line.missing else value_text(line.ours, line.metric)
            gap = "" if line.gap is None else f"{line.gap:+.2g}" if abs(line.gap) < 0.01 else f"{line.gap:+.3f}"
            name = line.row if line.label in line.row else f"{line.row}: {line.label}"
            paper = value_text(line.paper, line.metric)
            rows.append([name, line.benchmark, line.metric, paper, ours, gap, best, marks])
        return rows, notes

    def to_markdown(self) -> str:
        rows, notes = self.cells()
        lines = [
            f"# Table {self.number}: {self.title}",
            "",
            self.setting,
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---|---|---|---:|---:|---:|---|---|",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            *(f"{k}. {note}" for k, note in enumerate(notes, 1)),
        ]
        return "\n".join(lines) + "\n"


def lines_of(
    table: PaperTable,
    row: PaperRow,
    measured: Mapping[str, Mapping[str, float]],
    missing: Mapping[str, Sequence[str]],
    remarks: Sequence[str] = (),
) -> list[Line]:
    """The lines of one row. measured, missing: by benchmark; remarks: what this run adds to the protocol."""
    lines = []
    for benchmark, values in row.paper.items():
        known = catalogue().benchmarks.get(benchmark)
        notes = tuple(filter(None, (row.protocol, table.note, known.protocol if known else "", *remarks)))
        for metric, paper in zip(table.metrics_of(row), values, strict=True):
            ours = measured.get(benchmark, {}).get(metric)
            later = best_later(benchmark, metric, row.joints if row.measure == "pck" else None)
            title = known.title if known else benchmark
            finite = None if ours is None or not math.isfinite(ours) else ours
            absent = tuple(missing.get(benchmark, ()))
            lines.append(Line(row.id, row.label, title, metric, paper, finite, notes, absent, later))
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


def higher_is_better(metric: str) -> bool:
    return metric.startswith(HIGHER_IS_BETTER)


def value_text(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    if metric.endswith("_m2"):
        return f"{value:.2e}"
    if metric.endswith("_m"):
        return f"{value:.4f}"
    return f"{value:.2f}" if metric.endswith(("_mm", "percent")) or metric.startswith("pck") else f"{value:.3f}"
