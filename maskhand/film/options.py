"""Film options as plain values, without heavy imports."""

from __future__ import annotations

from typing import Literal, get_args

Smoothing = Literal["none", "causal", "whole"]
"""No smoothing, causal One-Euro filters, or a smoother over the whole film."""

SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)


def smoothing_facts(smoothing: Smoothing) -> dict[str, str]:
    """Settings that determine the results of a run's films, beside those of its `PredictRequest`."""
    return {"smoothing": smoothing}
