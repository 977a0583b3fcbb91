"""Errors of hands in the camera frames of their images: projected, in pixels, and in 3D without any alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.metrics.accumulate import row_means
from maskhand.metrics.pck import MIN_CONFIDENCE, PCK_THRESHOLDS
from maskhand.scoring.predictions import Predictions
from maskhand.shards.reader import ShardSample

PCK_NAMES = {f"pck_{round(100 * threshold):03d}": threshold for threshold in PCK_THRESHOLDS}


@dataclass(frozen=True)
class PlacedErrors:
    """Of N hands; NaN where there is no truth, or the predictor places no hands."""

    distance_px: Tensor
    """(N, 21) float64 of the projected joints from the annotated ones; infinite for a failed sample."""
    absolute_m: Tensor
    """(N, 21) float64 distance in the camera frame, without any alignment; a failed sample is a point at its origin."""

    @classmethod
    def of(cls, placed: Predictions | None, rows: Sequence[ShardSample]) -> PlacedErrors:
        if placed is None:
            unknown = torch.full((len(rows), 21), torch.nan, dtype=torch.float64)
            return cls(unknown, unknown)
        return cls(torch.from_numpy(_distances_px(placed, rows)), torch.from_numpy(_absolute_m(placed, rows)))

    @classmethod
    def concatenate(cls, parts: Sequence[PlacedErrors]) -> PlacedErrors:
        return cls(torch.cat([p.distance_px for p in parts]), torch.cat([p.absolute_m for p in parts]))

    def values(self, size_px: Array) -> dict[str, Array]:
        """Name of a metric -> (N, 21) values whose mean it is. size_px (N,): longer sides of the annotations' boxes."""
        distance = self.distance_px.numpy()
        within = {
            name: np.where(np.isnan(distance), np.nan, distance <= threshold * size_px[:, None])
            for name, threshold in PCK_NAMES.items()
        }
        # a failed sample is wrong, but not by so many pixels
        reached = np.where(np.isfinite(distance), distance, np.nan)
        return {"absolute_mpjpe_mm": 1e3 * self.absolute_m.numpy(), "epe_px": reached, **within}

    def per_sample(self) -> dict[str, Array]:
        """Column -> (N,) means over a hand's joints."""
        return {
            "epe_px": row_means(self.distance_px.numpy()),
            "absolute_mpjpe_mm": 1e3 * row_means(self.absolute_m.numpy()),
        }


def _distances_px(placed: Predictions, rows: Sequence[ShardSample]) -> Array:
    found = np.full((len(rows), 21), np.nan)
    for k, row in enumerate(rows):
        target, confidence = row.sample.joints_2d_px, row.sample.joints_2d_conf
        if target is not None:
            seen = np.ones(21, bool) if confidence is None else confidence > MIN_CONFIDENCE
            distance = np.linalg.norm(placed.joints_px[k].astype(np.float64) - target, axis=1)
            found[k, seen] = np.where(np.isnan(distance), np.inf, distance)[seen]
    return found


def _absolute_m(placed: Predictions, rows: Sequence[ShardSample]) -> Array:
    distance = np.linalg.norm(np.nan_to_num(placed.joints_cam_m.astype(np.float64)) - placed.truth_cam_m, axis=-1)
    distance[[row.sample.camera is None for row in rows]] = np.nan
    return distance
