"""Curves of a training when it is over."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def curves_png(rows: Sequence[Mapping[str, float]]) -> bytes:
    """An image of every metric in `rows` (with `step`) over the steps."""
    names = [name for name in rows[-1] if name != "step"]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, k + 1)
        known = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*known, strict=True))
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
