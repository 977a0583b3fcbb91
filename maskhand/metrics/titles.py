"""How people read a metric: its title, its unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric as tables show it."""

    title: str
    unit: str = ""
    """`mm` or `px`; empty for a fraction."""
    larger_is_better: bool = False

    @property
    def column(self) -> str:
        """Heading of its column: the title and the unit."""
        return f"{self.title} {self.unit}" if self.unit else self.title

    @property
    def digits(self) -> int:
        """Decimal places of its values in tables."""
        return 2 if self.unit else 3

    def cell(self, value: float) -> str:
        """A value in a table; a dash for NaN."""
        return "–" if value != value else f"{value:.{self.digits}f}"


METRICS: Mapping[str, Metric] = {
    "pa_mpjpe_mm": Metric("PA-MPJPE", "mm"),
    "pa_mpvpe_mm": Metric("PA-MPVPE", "mm"),
    "pa_f5": Metric("F@5", larger_is_better=True),
    "pa_f15": Metric("F@15", larger_is_better=True),
    "pa_auc_joints": Metric("AUC", larger_is_better=True),
    "pa_auc_vertices": Metric("AUC_V", larger_is_better=True),
    "mpjpe_mm": Metric("MPJPE", "mm"),
    "mpvpe_mm": Metric("MPVPE", "mm"),
    "absolute_mpjpe_mm": Metric("absolute MPJPE", "mm"),
    "epe_px": Metric("EPE", "px"),
    "pck_005": Metric("PCK@5", larger_is_better=True),
    "pck_010": Metric("PCK@10", larger_is_better=True),
}
"""The metrics of an evaluation that tables for people show, by the name that files and MLflow have."""
