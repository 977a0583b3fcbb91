"""The page of a comparison: one HTML file that fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jinja2 import Environment, StrictUndefined

from maskhand.comparison.records import ComparedRun, Comparison, PairOfRuns
from maskhand.comparison.sheet import DrawnHand
from maskhand.comparison.tables import notes, result_tables, setting_tables
from maskhand.evaluation.page import charts
from maskhand.metrics.titles import METRICS
from maskhand.render import jpeg_url

_STYLES = 6
"""Colors of the style sheets; a seventh run begins again."""
_FIRST_CURVES = ("train/loss", "val/pa_mpjpe_mm")


@dataclass(frozen=True)
class _Hand:
    key: str
    side: str
    change: str
    errors: str
    images: list[tuple[str, str]]


@dataclass(frozen=True)
class _Pair:
    title: str
    hands: list[_Hand]


def page(comparison: Comparison, drawn: Sequence[tuple[str, PairOfRuns, Sequence[DrawnHand]]]) -> str:
    """The HTML text. drawn: the hands that changed, by set and pair."""
    files = resources.files("maskhand")
    style = files.joinpath("evaluation", "page", "page.css").read_text("utf-8")
    text = files.joinpath("comparison", "page.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text).render(
        style=style,
        runs=comparison.runs,
        notes=notes(comparison),
        results=list(result_tables(comparison)),
        settings=list(setting_tables(comparison)),
        pairs=[_pair(name, pair, hands) for name, pair, hands in drawn],
        curves=list(curve_charts(comparison.runs).items()),
    )


def curve_charts(runs: Sequence[ComparedRun]) -> Mapping[str, str]:
    """Metric -> SVG of its curves over the steps, a line per run; the loss and the validation error first."""
    names = {name for run in runs for name, curve in run.curves.items() if len(curve) > 1}
    ordered = [name for name in _FIRST_CURVES if name in names] + sorted(names - set(_FIRST_CURVES))
    return {name: _chart(name, runs) for name in ordered}


def _chart(name: str, runs: Sequence[ComparedRun]) -> str:
    series = []
    for place, run in enumerate(runs):
        if curve := run.curves.get(name):
            steps, values = np.array(curve, np.float64).T
            series.append(charts.Series(run.label, steps, values, place % _STYLES))
    return charts.lines(series, "step", name)


def _pair(name: str, pair: PairOfRuns, drawn: Sequence[DrawnHand]) -> _Pair:
    metric = METRICS[pair.ranked_by]
    hands = [
        _Hand(
            key=one.hand.key,
            side=one.hand.side,
            change=f"{one.hand.change:+.1f} {metric.unit}",
            errors=f"{metric.column} {one.hand.reference:.1f} and {one.hand.other:.1f}",
            images=[(title, jpeg_url(image)) for title, image in one.images],
        )
        for one in drawn
    ]
    return _Pair(f"{name}: {pair.other} against {pair.reference}", hands)
