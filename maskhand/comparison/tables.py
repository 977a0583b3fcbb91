"""A comparison as tables of text, for the terminal, MLflow and the page, and as JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maskhand.comparison.records import PER_HAND, Comparison, PairedMetric, SetComparison
from maskhand.metrics.titles import METRICS

FORMAT = 1
"""Version of `comparison.json`."""


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(comparison: Comparison) -> Iterator[Table]:
    """Those of the settings, then those of the results: on a terminal the last is seen first."""
    yield from setting_tables(comparison)
    yield from result_tables(comparison)


def setting_tables(comparison: Comparison) -> Iterator[Table]:
    """Parameters and circumstances that differ; a table without rows is left out."""
    for name, values in (("parameters", comparison.parameters), ("circumstances", comparison.circumstances)):
        if values:
            rows = tuple((key, *("–" if value is None else value for value in row)) for key, row in values.items())
            yield Table(f"{name} that differ", (name[:-1], *(run.label for run in comparison.runs)), rows)


def result_tables(comparison: Comparison) -> Iterator[Table]:
    """For every set its metrics, and for every run the hands that changed most."""
    for one in comparison.sets:
        yield from _of_set(one)


def notes(comparison: Comparison) -> list[str]:
    """Sentences on what is not the same, the sets' own begun by their names."""
    found = [*comparison.notes, *(f"{one.name}: {note}" for one in comparison.sets for note in one.notes)]
    if not comparison.parameters and all(run.parameters for run in comparison.runs):
        found.insert(0, f"all {comparison.same_parameters} parameters are the same")
    return found


def _of_set(one: SetComparison) -> Iterator[Table]:
    if one.pairs:
        yield _metrics(one)
    if one.unpaired and not one.pairs:
        rows = tuple(
            (METRICS[metric].column, *(_number(metric, values.get(label, math.nan)) for label in one.runs))
            for metric, values in one.unpaired.items()
            if metric in PER_HAND
        )
        yield Table(f"{one.name}: numbers of the sets, not of the same hands", ("metric", *one.runs), rows)
    for pair in one.pairs:
        if pair.changed:
            yield Table(
                f"{one.name}: hands that changed most, {METRICS[pair.ranked_by].column}",
                ("hand", "side", pair.reference, pair.other, "change", ""),
                tuple(
                    (h.key, h.side, f"{h.reference:.1f}", f"{h.other:.1f}", f"{h.change:+.1f}", h.failure)
                    for h in pair.changed
                ),
            )


def _metrics(one: SetComparison) -> Table:
    """The metrics of a set on its shared hands: a column per run, and one for each run's difference."""
    reference = one.pairs[0].reference
    by_metric = {pair.other: {m.metric: m for m in pair.metrics} for pair in one.pairs}
    rows = []
    for metric in dict.fromkeys(name for found in by_metric.values() for name in found):
        cells = []
        values = [found.get(metric) for found in by_metric.values()]
        known = next(value for value in values if value is not None)
        for value in values:
            cells += ["–", "–"] if value is None else [_number(metric, value.other), difference_cell(value)]
        rows.append((METRICS[metric].column, _number(metric, known.reference), *cells))
    columns = [word for pair in one.pairs for word in (pair.other, "change (95 %)")]
    title = f"{one.name}: means over the {one.shared} hands that all runs have"
    return Table(title, ("metric", reference, *columns), tuple(rows))


def difference_cell(value: PairedMetric) -> str:
    """`-1.21 (-1.50 to -0.93) better`; the number of hands where it is not all of them is in the JSON."""
    digits = METRICS[value.metric].digits
    numbers = [f"{number:+.{digits}f}" for number in (value.difference, value.low, value.high)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]}) {value.verdict}"


def _number(metric: str, value: float) -> str:
    return METRICS[metric].cell(value if math.isfinite(value) else math.nan)


def to_markdown(comparison: Comparison) -> str:
    """The tables as they are kept with tracked runs."""
    lines = [f"* {run.label}: {run.source}" for run in comparison.runs]
    lines += [f"* {note}" for note in notes(comparison)]
    for table in tables(comparison):
        lines += ["", f"**{table.title}**", "", _row(table.columns), _row(["---"] * len(table.columns))]
        lines += [_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_json(comparison: Comparison) -> bytes:
    """Every number; what is not finite is null."""
    values = {
        "format": FORMAT,
        "runs": [{"label": run.label, "source": run.source} for run in comparison.runs],
        "parameters": comparison.parameters,
        "circumstances": comparison.circumstances,
        "same_parameters": comparison.same_parameters,
        "sets": [asdict(one) | {"pairs": [_pair(pair) for pair in one.pairs]} for one in comparison.sets],
        "notes": notes(comparison),
    }
    return (json.dumps(_finite(values), indent=1) + "\n").encode()


def _pair(pair: Any) -> dict[str, Any]:
    metrics = [asdict(one) | {"difference": one.difference, "verdict": one.verdict} for one in pair.metrics]
    return asdict(pair) | {"metrics": metrics, "changed": [asdict(h) | {"change": h.change} for h in pair.changed]}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
