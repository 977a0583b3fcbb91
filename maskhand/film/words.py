"""How a film is asked for; plain words, without what answers."""

from __future__ import annotations

from typing import Literal, get_args

Smoothing = Literal["none", "causal", "whole"]
"""Frames as they are, One-Euro filters that know the past alone, or a smoother that knows the whole film."""

SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)


def smoothing_facts(smoothing: Smoothing) -> dict[str, str]:
    """What decides the results of a run's films beside its question."""
    return {"smoothing": smoothing}
