"""Numbers of labels and prediction files that cannot be meant: another unit, or beyond anything a hand could be.

The official programs score them all the same; what they print then says nothing about a method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from maskhand.arrays import Array
from maskhand.scoring.scores import ScoreError

Unit = Literal["meters", "millimeters"]
METERS: Mapping[str, float] = {"meters": 1.0, "centimeters": 0.01, "millimeters": 0.001}
LARGEST = 1e9
"""Of a coordinate in any unit; squares of some more digits overflow, and are scored as infinity or not at all."""
MOST_TIMES = 20.0
"""By how much the hands of a bad method may be larger than the true ones."""
ENOUGH_JOINTS = 6
"""To tell a hand's extent from."""
_HAND_M = (0.005, 3.0)
"""Distances of a hand's points from their middle, in meters; beyond are other units."""
_BOX_TO_HAND = (0.25, 20.0)
"""Sides of a box by the extent of the joints in it: of a part of the hand, and of a few joints of it."""


def check_numbers(values: Array, unit: str, place: Callable[[int], str], counts: Array | None = None) -> None:
    """Raise ScoreError for a number of (N, P, D) that is no coordinate; NaN and infinity are let through.

    place: row -> the file and the place in it; counts: (N, P) bool, points that are looked at; others may be anything.
    """
    absurd = (np.abs(values.astype(np.float64, copy=False)) > LARGEST) & np.isfinite(values)
    if counts is not None:
        absurd &= counts[..., None]
    if absurd.any():
        at = tuple(int(k) for k in np.argwhere(absurd)[0])
        raise ScoreError(
            f"{place(at[0])} holds {values[at]:g}, expected {unit}, at most {LARGEST:g} of them; is the file damaged, "
            "or did the method diverge? NaN stands for a hand without a prediction"
        )


def check_truth(where: str, truth: Array, unit: Unit) -> None:
    """Raise ScoreError where labels (N, P, 3), finite, are no hands in this unit."""
    found = sizes(truth.astype(np.float64, copy=False))
    size = float(np.median(found[found > 0])) if (found > 0).any() else 0.0
    if size and not _HAND_M[0] < size * METERS[unit] < _HAND_M[1]:
        raise ScoreError(
            f"{where}: the points of a true hand are {size:.3g} {unit} from their middle; are the labels in another "
            f"unit? {unit[0].upper()}{unit[1:]} are expected; convert them, or get the file again"
        )


def check_unit(where: str, points: Array, truth: Array, unit: Unit) -> None:
    """Raise ScoreError where predictions (N, P, 3) are of another unit than the true hands (N, P, 3), both finite.

    Hands that are a single point, and samples whose hand has no size, tell nothing.
    """
    mine, true = sizes(points), sizes(truth)
    real = (mine > 0) & (true > 0)
    if not real.any():
        return
    ratio = float(np.median(mine[real] / true[real]))
    meant = next((name for name, m in METERS.items() if name != unit and 0.5 < ratio * m / METERS[unit] < 2), None)
    if meant is None and ratio < MOST_TIMES:
        return
    asked = f"did you write {meant}? " if meant else ""
    raise ScoreError(
        f"{where}: the predicted hands are {ratio:.3g} times as large as the true ones, whose joints are "
        f"{np.median(true[real]):.3g} {unit} from their middle: {asked}{unit[0].upper()}{unit[1:]} are expected; "
        "convert them and score the file again"
    )


def check_boxes(where: str, size_px: Array, points_px: Array, counts: Array) -> None:
    """Raise ScoreError where boxes (N,) are not in the unit of the joints (N, J, 2) in them, of which (N, J) count.

    HaMeR's own label files have `scale` in units of 200 px, its evaluation files in pixels.
    """
    chosen = counts.sum(1) >= ENOUGH_JOINTS
    if not chosen.any():
        return
    known = np.where(counts[chosen][..., None], points_px[chosen], np.nan)
    extent_px = (np.nanmax(known, axis=1) - np.nanmin(known, axis=1)).max(1)
    ratio = float(np.median(size_px[chosen] / np.maximum(extent_px, 1e-6)))
    if _BOX_TO_HAND[0] <= ratio <= _BOX_TO_HAND[1]:
        return
    raise ScoreError(
        f"{where}: scale is a box of {np.median(size_px[chosen]):.3g} px (median), and the joints in it are "
        f"{np.median(extent_px):.3g} px apart; expected the longer side of the hand's box in pixels. "
        + ("Is it in units of 200 px, or a fraction of the picture?" if ratio < 1 else "Are the joints in pixels?")
    )


def sizes(points: Array) -> Array:
    """(N, P, 3) -> (N,) root mean square distance from the centroid."""
    return np.asarray(np.sqrt(((points - points.mean(1, keepdims=True)) ** 2).sum(-1).mean(1)))
