"""Tiny datasets in the official on-disk layouts, written from known 3D hands.

Nothing here uses the adapters' conversions: meshes come from smplx, joint orders are spelled out by name, and cameras
are written from the datasets' own formulas. A layout that a card names must have a writer here.
"""

from __future__ import annotations

from collections.abc import Callable

from support.published_layouts import (
    asl_alphabet,
    coco_wholebody,
    dexycb,
    freihand,
    halpe,
    hamer,
    hand143,
    hand_labels,
    hint,
    ho3d,
    interhand26m,
    mtc,
    photos,
    rhd,
)
from support.published_layouts.hands import Fixture, Truth

WRITERS: dict[str, Callable[..., Fixture]] = {
    "asl_alphabet": asl_alphabet.write,
    "coco_wholebody": coco_wholebody.write,
    "dexycb": dexycb.write,
    "freihand": freihand.write,
    "hamer_npz": hamer.write_npz,
    "hamer_tars": hamer.write_tars,
    "halpe": halpe.write,
    "hand143": hand143.write,
    "hand_labels": hand_labels.write,
    "hint": hint.write,
    "ho3d": ho3d.write,
    "interhand26m": interhand26m.write,
    "mtc": mtc.write,
    "photos": photos.write,
    "rhd": rhd.write,
}

__all__ = ["WRITERS", "Fixture", "Truth"]
