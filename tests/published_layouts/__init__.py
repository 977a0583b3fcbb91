"""Tiny datasets in the official on-disk layouts, written from known 3D hands.

Nothing here uses the adapters' conversions: meshes come from smplx, joint orders are spelled out by name, and cameras
are written from the datasets' own formulas. A layout that a card names must have a writer here.
"""

from __future__ import annotations

from collections.abc import Callable

from published_layouts import dexycb, freihand, hamer, ho3d, interhand26m, rhd
from published_layouts.hands import Fixture, Truth

WRITERS: dict[str, Callable[..., Fixture]] = {
    "dexycb": dexycb.write,
    "freihand": freihand.write,
    "hamer_npz": hamer.write_npz,
    "hamer_tars": hamer.write_tars,
    "ho3d": ho3d.write,
    "interhand26m": interhand26m.write,
    "rhd": rhd.write,
}

__all__ = ["WRITERS", "Fixture", "Truth"]
