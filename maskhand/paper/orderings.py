"""Which orderings of the paper hold here: a row against the base row of its table, seed by seed.

Two trainings that differ by their seed differ in their numbers too. So an ordering is judged by the differences of rows
that share a seed: it is decided when the 95 % interval of their mean (Student's t over the seeds) does not reach zero.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from maskhand.paper.tables import PaperRow, PaperTable, benchmark_title

CONFIDENCE = 0.95

HIGHER_IS_BETTER = ("pa_f", "pa_auc", "pck", "apd", "below_mean_pose", "score_rank", "log_probability_rank")
"""Beginnings of the metrics where more is better."""

Verdict = Literal["holds", "does not hold", "not decided", "no ordering"]

RowValues = Mapping[str, Mapping[int, Mapping[str, Mapping[str, float]]]]
"""Row id -> seed -> benchmark -> metric -> value."""


@dataclass(frozen=True)
class Ordering:
    """A row against its table's base row in one number."""

    row: str
    """Its id and label."""
    base: str
    benchmark: str
    metric: str
    claim: str
    """What the paper concludes; empty where it only prints numbers."""
    paper: float | None
    """The row's value minus the base's, as printed."""
    differences: tuple[float, ...]
    """Ours, of rows of one seed, in the metric's unit."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for a single one."""
        return statistics.stdev(self.differences) if len(self.differences) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean difference; None for a single seed."""
        return None if self.spread is None else student_interval(self.mean, self.spread, len(self.differences))

    @property
    def expected(self) -> int:
        """Sign of the difference by the paper, 0 where it says nothing; a claim means that the base is better."""
        if self.paper is not None and self.paper != 0:
            return 1 if self.paper > 0 else -1
        if self.claim and self.paper is None:
            return -1 if higher_is_better(self.metric) else 1
        return 0

    @property
    def verdict(self) -> Verdict:
        if not self.expected:
            return "no ordering"
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "not decided"
        return "holds" if self.mean * self.expected > 0 else "does not hold"

    def ours_text(self) -> str:
        if self.interval is None or self.spread is None:
            return f"{difference_text(self.mean)} (one seed decides nothing)"
        low, high = map(difference_text, self.interval)
        return f"{difference_text(self.mean)} ± {self.spread:.2g} ({len(self.differences)} seeds; {low} to {high})"


def sentences(orderings: Sequence[Ordering], emphasis: str = "") -> list[str]:
    """Which orderings of the paper hold, in the metric of each row that is named first, and how many.

    Benchmarks that are one set here, as in embedded runs, share a sentence where the paper orders them alike. emphasis:
    stands around each verdict, `**` in markdown.
    """
    first: dict[tuple[str, str], Ordering] = {}
    for ordering in orderings:
        if ordering.expected:
            first.setdefault((ordering.row, ordering.benchmark), ordering)
    groups: dict[tuple[object, ...], list[Ordering]] = defaultdict(list)
    for o in first.values():
        groups[o.row, o.metric, o.differences, o.expected].append(o)
    if not groups:
        return []
    counts = Counter(alike[0].verdict for alike in groups.values())
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("holds", "does not hold", "not decided"))
    return [*(_sentence(alike, emphasis) for alike in groups.values()), f"Of {len(groups)} orderings: {total}."]


def _sentence(alike: Sequence[Ordering], emphasis: str) -> str:
    o = alike[0]
    worse = (o.expected > 0) != higher_is_better(o.metric)
    said = o.claim or f"{o.row} is {'worse' if worse else 'better'} than {o.base}"
    paper = ", ".join(
        f"{'no number' if one.paper is None else difference_text(one.paper)} on {one.benchmark}" for one in alike
    )
    return (
        f"{said[0].upper()}{said[1:]}: {emphasis}{o.verdict}{emphasis}. "
        f"{o.row} minus {o.base} in {o.metric}: here {o.ours_text()}; in the paper {paper}."
    )


def student_interval(mean: float, spread: float, count: int) -> tuple[float, float]:
    """The two-sided CONFIDENCE interval of a mean from `count` > 1 values of standard deviation `spread`."""
    from scipy.stats import t

    reach = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread / math.sqrt(count)
    return mean - reach, mean + reach


def orderings_of(table: PaperTable, measured: RowValues) -> list[Ordering]:
    """Every row that ran against the first base row that reports its benchmark, in each metric they share."""
    found = []
    for row in table.rows:
        for benchmark in row.paper:
            base = next((b for b in map(table.row, table.base) if benchmark in b.paper and b.id != row.id), None)
            if row.id in table.base or base is None:
                continue
            title = benchmark_title(benchmark)
            printed = [dict(zip(table.metrics_of(r), r.paper[benchmark], strict=True)) for r in (row, base)]
            for metric in table.metrics_of(row):
                differences = _differences(row, base, benchmark, metric, measured)
                if differences and metric in printed[1]:
                    mine, theirs = printed[0][metric], printed[1][metric]
                    paper = None if mine is None or theirs is None else mine - theirs
                    found.append(Ordering(row.name, base.name, title, metric, row.claim, paper, differences))
    return found


def _differences(row: PaperRow, base: PaperRow, benchmark: str, metric: str, measured: RowValues) -> tuple[float, ...]:
    mine, theirs = (values_of(measured.get(r.id, {}), benchmark, metric) for r in (row, base))
    return tuple(mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys()))


def values_of(
    by_seed: Mapping[int, Mapping[str, Mapping[str, float]]], benchmark: str, metric: str
) -> dict[int, float]:
    """Seed -> finite value of one row."""
    found = {seed: measured.get(benchmark, {}).get(metric, math.nan) for seed, measured in by_seed.items()}
    return {seed: found[seed] for seed in sorted(found) if math.isfinite(found[seed])}


def higher_is_better(metric: str) -> bool:
    return metric.rpartition("/")[2].startswith(HIGHER_IS_BETTER)


def difference_text(value: float) -> str:
    return f"{value:+.2g}" if abs(value) < 0.01 else f"{value:+.3f}"
