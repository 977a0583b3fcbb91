"""Diagnose why a prediction file fits badly: wrong joint order, axes, mirrored hands, no root position, other hands.

These are the mistakes that files in this field have, beside another unit (`plausible`). Nothing is converted, for the
official programs convert nothing: each diagnosis is a warning, given only where undoing the mistake would at least
halve the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import JOINT_ORDERS
from maskhand.metrics.alignment import procrustes_align, root_relative
from maskhand.metrics.samples import mpjpe
from maskhand.scoring.plausible import METERS, Unit, sizes

ENOUGH = 512
"""Samples that are looked at, spread over the file."""
BETTER = 0.5
"""Fraction of the error that is left when the mistake is undone."""
ENOUGH_TO_MOVE = 8
"""Samples from which their order can be judged."""
_FEW = 48
"""Predictions that are laid on every true hand."""
_NO_BETTER = 0.9
"""Of the error at another position: a method that sees its images is below."""
_FAR = 2.0
"""A wrist this many hand sizes from the camera is not a hand at the camera."""

_FLIPS: Mapping[tuple[int, int, int], str] = {
    (1, -1, -1): "y and z point the other way: did you mix up OpenCV's axes (y down, z forward) and OpenGL's?",
    (-1, 1, 1): "x points the other way: were left hands, or all, mirrored for the network and not mirrored back?",
    (-1, -1, 1): "x and y point the other way: is the image turned by 180 degrees?",
}


@dataclass(frozen=True)
class Convention:
    """Unit and joint order of a format's files."""

    unit: Unit
    order: str
    """A key of JOINT_ORDERS."""

    @property
    def wrist(self) -> int:
        return JOINT_ORDERS[self.order][0]


def diagnose(points: Array, truth: Array, convention: Convention) -> list[str]:
    """Sentences about predictions (N, 21, 3) of true hands (N, 21, 3), both as in the files; finite, in one unit."""
    chosen = np.unique(np.linspace(0, len(truth) - 1, min(ENOUGH, len(truth))).round().astype(int))
    points, truth = points[chosen].astype(np.float64), truth[chosen].astype(np.float64)
    real = (sizes(points) > 0) & (sizes(truth) > 0)
    if not real.any():
        return []
    points, truth = points[real], truth[real]
    found = _root(points, truth, convention)
    order, sentences = _order(points, truth, convention)
    found += sentences
    moved = _reordered(points, order, convention.order)
    sentences = _axes(moved, truth, convention)
    return found + (sentences or _mirrored(moved, truth, convention) or _other_hands(moved, truth, convention))


def _root(points: Array, truth: Array, convention: Convention) -> list[str]:
    size = np.median(sizes(truth))
    mine, true = (np.median(np.linalg.norm(x[:, convention.wrist], axis=-1)) for x in (points, truth))
    if mine < 1e-3 * size and true > _FAR * size:
        return [
            "every predicted wrist is at the origin, the true ones are "
            f"{_mm(true, convention):.0f} mm from the camera: numbers without alignment need the hand's position too"
        ]
    return []


def _order(points: Array, truth: Array, convention: Convention) -> tuple[str, list[str]]:
    errors = {
        name: _error(procrustes_align(_reordered(points, name, convention.order), truth, reflection=False), truth)
        for name in JOINT_ORDERS
    }
    best = min(errors, key=lambda name: errors[name])
    if errors[best] >= BETTER * errors[convention.order]:
        return convention.order, []
    return best, [
        f"read in the joint order {best}, the predictions fit far better after alignment "
        f"({_change(errors[convention.order], errors[best], convention)}): did you write that order? "
        f"{convention.order} is expected"
    ]


def _axes(points: Array, truth: Array, convention: Convention) -> list[str]:
    target = root_relative(truth, convention.wrist)
    now = _error(root_relative(points, convention.wrist), target)
    errors = {flip: _error(root_relative(points * flip, convention.wrist), target) for flip in _FLIPS}
    best = min(errors, key=lambda flip: errors[flip])
    if errors[best] >= BETTER * now:
        return []
    return [f"{_FLIPS[best]} With that undone, errors about the wrist fall {_change(now, errors[best], convention)}"]


def _mirrored(points: Array, truth: Array, convention: Convention) -> list[str]:
    forbidden, allowed = (_error(procrustes_align(points, truth, reflection=mirror), truth) for mirror in (False, True))
    if allowed >= BETTER * forbidden:
        return []
    return [
        "most predictions are mirror images of the hands, which the official alignment allows: without mirroring the "
        f"aligned error rises {_change(allowed, forbidden, convention)}"
    ]


def _other_hands(points: Array, truth: Array, convention: Convention) -> list[str]:
    """Predictions that fit other hands far better than those at their own position, and these no better than any
    other. A single hand for all is no mistake, nor is noise."""
    if len(points) < ENOUGH_TO_MOVE:
        return []
    others = np.roll(np.arange(len(points)), len(points) // 3 + 1)
    own, foreign = (_error(procrustes_align(points, y, reflection=False), y) for y in (truth, truth[others]))
    if own < _NO_BETTER * foreign:
        return []
    few = points[:: -(-len(points) // _FEW)]
    every = np.tile(truth, (len(few), 1, 1))
    pairs = mpjpe(procrustes_align(np.repeat(few, len(truth), axis=0), every, reflection=False), every)
    nearest = float(np.median(pairs.reshape(len(few), len(truth)).min(1)))
    if nearest >= BETTER * own:
        return []
    return [
        f"the predictions fit hands at other positions far better than those at their own (after alignment "
        f"{_mm(nearest, convention):.1f} and {_mm(own, convention):.1f} mm): are they in another order, such as that "
        "of file names sorted as text?"
    ]


def _reordered(points: Array, order: str, expected: str) -> Array:
    """Points (N, 21, 3) that were written in `order`, in the expected one."""
    stored = np.empty_like(points)
    stored[:, list(JOINT_ORDERS[expected])] = points[:, list(JOINT_ORDERS[order])]
    return stored


def _error(points: Array, truth: Array) -> float:
    """Median over samples of the mean distance."""
    return float(np.median(mpjpe(points, truth)))


def _change(before: float, after: float, convention: Convention) -> str:
    return f"from {_mm(before, convention):.1f} to {_mm(after, convention):.1f} mm"


def _mm(length: float, convention: Convention) -> float:
    return 1e3 * length * METERS[convention.unit]
