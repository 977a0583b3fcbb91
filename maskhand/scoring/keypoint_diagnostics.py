"""Diagnose why 2D keypoints fit badly: x and y exchanged, pixels of a crop, samples in another order.

As in `diagnostics`, nothing is converted; each sentence is given only where the mistake explains the errors.
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array
from maskhand.scoring.diagnostics import BETTER, ENOUGH_TO_MOVE
from maskhand.scoring.plausible import ENOUGH_JOINTS

_BAD = 0.25
"""Median error, as a share of the box, below which nothing is looked for."""
_FITS = 0.1
_FEW = 48
"""Predictions that are compared with every true hand."""


def diagnose_keypoints(points_px: Array, truth_px: Array, counts: Array, size_px: Array) -> list[str]:
    """Sentences about predictions (N, J, 2) of keypoints (N, J, 2), of which (N, J) count, in boxes of (N,) pixels."""
    whole = (counts.sum(1) >= ENOUGH_JOINTS) & (np.isfinite(points_px).all(-1) | ~counts).all(1)
    if not whole.any():
        return []
    counts = counts[whole]
    points, truth = (np.where(counts[..., None], x[whole].astype(np.float64), 0.0) for x in (points_px, truth_px))
    size = size_px[whole]
    now = _error(points, truth, counts, size)
    if now < _BAD:
        return []
    if (exchanged := _error(points[..., ::-1], truth, counts, size)) < BETTER * now and exchanged < _BAD:
        return [
            f"with x and y exchanged the median error falls from {now:.2f} to {exchanged:.2f} of the box: x is first"
        ]
    if (moved := _error(_laid_on(points, truth, counts), truth, counts, size)) < _FITS:
        return [
            f"moved and enlarged onto the true hands the median error falls from {now:.2f} to {moved:.2f} of the box: "
            "are the keypoints in pixels of the crop? Pixels of the original image are expected"
        ]
    few = np.arange(0, len(points), -(-len(points) // _FEW))
    apart = np.linalg.norm(points[few][:, None] - truth[None], axis=-1)
    both = counts[few][:, None] & counts[None]
    errors = (apart * both).sum(-1) / np.maximum(both.sum(-1), 1) / size
    errors[both.sum(-1) < ENOUGH_JOINTS] = np.inf
    nearest = float(np.median(errors.min(1)))
    if len(points) >= ENOUGH_TO_MOVE and nearest < _FITS < BETTER * now:
        return [
            f"the predictions fit the hands at other positions far better than those at their own (median error "
            f"{nearest:.2f} and {now:.2f} of the box): are they in another order, such as that of file names sorted as "
            "text?"
        ]
    return []


def _error(points: Array, truth: Array, counts: Array, size: Array) -> float:
    """Median over samples of the mean distance of counted joints, as a share of the box."""
    apart = np.linalg.norm(points - truth, axis=-1)
    return float(np.median((apart * counts).sum(1) / counts.sum(1) / size))


def _laid_on(points: Array, truth: Array, counts: Array) -> Array:
    """Each hand moved and enlarged so that its counted joints lie on the true ones as well as they can."""
    weight = counts[..., None] / counts.sum(1)[:, None, None]
    middles = [(x * weight).sum(1, keepdims=True) for x in (points, truth)]
    mine, true = ((x - middle) * counts[..., None] for x, middle in zip((points, truth), middles, strict=True))
    scale = (mine * true).sum((1, 2)) / np.maximum((mine**2).sum((1, 2)), 1e-12)
    return np.asarray((points - middles[0]) * scale[:, None, None] + middles[1])
