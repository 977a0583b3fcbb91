"""Charts as inline SVG: lines, bars and histograms, colored by the page's style sheet so that dark and light fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from maskhand.arrays import Array

WIDTH, HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 40


@dataclass(frozen=True)
class Series:
    """One curve or one set of bars."""

    name: str
    x: Array
    y: Array
    """NaN leaves a gap."""
    style: int
    """Which of the page's colors, from 0."""
    dashed: bool = False


def lines(series: Sequence[Series], x_label: str, y_label: str, y_max: float | None = None, dots: bool = False) -> str:
    """Curves over common axes that start at 0."""
    axes = _Axes.around(series, y_max)
    drawn = []
    for one in series:
        known = np.isfinite(one.x) & np.isfinite(one.y)
        points = " ".join(f"{axes.x(a):.1f},{axes.y(b):.1f}" for a, b in zip(one.x[known], one.y[known], strict=True))
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        drawn.append(f'<polyline class="line s{one.style}" points="{points}"{dash}/>')
        if dots:
            drawn += [
                f'<circle class="dot s{one.style}" cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3"/>'
                for p in points.split()
            ]
    return _figure(axes.frame(x_label, y_label) + drawn, series)


def histogram(values: Sequence[tuple[str, Array, int]], x_label: str) -> str:
    """Shares of samples per bin, one outline for each (name, values, style); fewer bins for few samples."""
    known = [(name, v[np.isfinite(v)], style) for name, v, style in values]
    known = [entry for entry in known if len(entry[1])]
    most = max((len(v) for _, v, _ in known), default=1)
    bins = int(np.clip(2 * most ** (1 / 3), 8, 40))  # Rice's rule: 80 hands of 30 bins would be noise
    edges = np.linspace(0, max((float(np.quantile(v, 0.99)) for _, v, _ in known), default=1.0) * 1.1 + 1e-9, bins + 1)
    series = []
    for name, v, style in known:
        fraction = np.histogram(np.minimum(v, edges[-1]), edges)[0] / len(v)
        series.append(Series(name, np.repeat(edges, 2)[1:-1], np.repeat(fraction, 2), style))
    return lines(series, x_label, "fraction of hands")


def bars(names: Sequence[str], groups: Sequence[tuple[str, Array, int]], x_label: str) -> str:
    """A row of horizontal bars for each name, one bar for each (group, values, style)."""
    row, left, right = 12 * len(groups) + 8, 112, 46
    top = 6
    height = top + row * len(names) + 34
    limit = max((float(np.nanmax(v)) for _, v, _ in groups if np.isfinite(v).any()), default=1.0) or 1.0
    scale = (WIDTH - left - right) / limit
    drawn = []
    for k, name in enumerate(names):
        y = top + k * row
        drawn.append(
            f'<text class="tick" x="{left - 6}" y="{y + row / 2 + 1:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        for g, (_, values, style) in enumerate(groups):
            if np.isfinite(values[k]):
                length = scale * float(values[k])
                place = f'x="{left}" y="{y + 12 * g + 1:.1f}" width="{length:.1f}" height="10" rx="1.5"'
                drawn.append(f'<rect class="bar s{style}" {place}/>')
                drawn.append(
                    f'<text class="tick" x="{left + length + 4:.1f}" y="{y + 12 * g + 9:.1f}">{values[k]:.1f}</text>'
                )
    drawn.append(_text("label", (left + WIDTH - right) / 2, height - 10, x_label))
    return _figure(drawn, [Series(name, np.empty(0), np.empty(0), style) for name, _, style in groups], height)


@dataclass(frozen=True)
class _Axes:
    x_max: float
    y_max: float

    @classmethod
    def around(cls, series: Sequence[Series], y_max: float | None) -> _Axes:
        highest = [float(np.nanmax(v)) for one in series for v in (one.y,) if np.isfinite(v).any()]
        widest = [float(np.nanmax(one.x)) for one in series if np.isfinite(one.x).any()]
        return cls(max(widest, default=1.0) or 1.0, y_max or (max(highest, default=1.0) * 1.08 or 1.0))

    def x(self, value: float) -> float:
        return _LEFT + value / self.x_max * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - min(value / self.y_max, 1.0) * (HEIGHT - _TOP - _BOTTOM)

    def frame(self, x_label: str, y_label: str) -> list[str]:
        parts = []
        for value in _ticks(self.y_max):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in _ticks(self.x_max):
            parts.append(_text("tick", self.x(value), HEIGHT - _BOTTOM + 15, f"{value:g}"))
        middle = (_TOP + HEIGHT - _BOTTOM) / 2
        parts.append(_text("label", (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label))
        turned = f'transform="translate(12 {middle}) rotate(-90)"'
        parts.append(f'<text class="label" {turned} text-anchor="middle">{escape(y_label)}</text>')
        return parts


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


def _ticks(limit: float) -> list[float]:
    step = 10.0 ** np.floor(np.log10(limit))
    while limit / step < 4:
        step /= 2
    return [round(float(k * step), 10) for k in range(int(limit / step + 1e-9) + 1)]


def _figure(parts: Sequence[str], series: Sequence[Series], height: int = HEIGHT) -> str:
    legend = "".join(f'<span><i class="key s{s.style}"></i>{escape(s.name)}</span>' for s in series if s.name)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg><p class="legend">{legend}</p>'
