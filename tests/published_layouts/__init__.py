"""Tiny datasets in the official on-disk layouts, written from known 3D hands.

Nothing here uses the adapters' conversions: meshes come from smplx, joint orders are spelled out by name, and cameras
are written from the datasets' own formulas. A layout that a card names must have a writer here.
"""

from __future__ import annotations

from collections.abc import Callable

from published_layouts import freihand, interhand26m
from published_layouts.hands import Fixture, Truth

WRITERS: dict[str, Callable[..., Fixture]] = {"freihand": freihand.write, "interhand26m": interhand26m.write}

__all__ = ["WRITERS", "Fixture", "Truth"]
