"""Predictions before they are written in an official format, and how a dataset stores hands.

Shards are shuffled; a submission is in the official order, which the samples' `origin` tells. A failed sample is
written as zeros (HInt: NaN, which counts as incorrect), as is one that the shards had to leave out; InterHand2.6M's
files lack the latter, prediction and truth alike.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from maskhand.arrays import Array
from maskhand.catalog import DatasetSpec
from maskhand.conventions import AXES_TO_OPENCV, JOINT_ORDERS, Side
from maskhand.errors import MaskhandError


class SubmissionError(MaskhandError, ValueError):
    """Predictions that cannot be put into the official order; the message says what their shards lack."""


@dataclass(frozen=True)
class Predictions:
    """N hands of one predictor in the order of the set. OpenPose joints; OpenCV camera axes; meters; stored pixels."""

    index: Array
    """(N,) int64 position in the shard set."""
    origin: tuple[dict[str, Any], ...]
    """The dataset's own ids, see `HandSample.origin`."""
    side: tuple[Side, ...]
    joints_cam_m: Array
    """(N, 21, 3) float32; depth is relative where the camera is unknown. NaN for a failed sample."""
    vertices_cam_m: Array
    """(N, 778, 3) float32, alike."""
    joints_px: Array
    """(N, 21, 2) float32, projections of `joints_cam_m`. NaN for a failed sample."""
    truth_cam_m: Array
    """(N, 21, 3) float32 annotated joints; NaN where a joint is not annotated."""

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            is_array = isinstance(values[0], np.ndarray)
            joined[field.name] = np.concatenate(values) if is_array else tuple(v for value in values for v in value)
        return cls(**joined)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Layout:
    """How a dataset stores hands, as its card says, and how many a submission has."""

    joint_order: str
    """A key of JOINT_ORDERS."""
    axes: str
    """A key of AXES_TO_OPENCV."""
    meters_per_unit: float
    planned: int
    """Hands of the split, those that the shards left out included."""

    @classmethod
    def of_card(cls, spec: DatasetSpec, planned: int) -> Layout:
        """Of a dataset; what its card leaves open is OpenPose order, OpenCV axes and meters."""
        meters_per_unit = 1.0 if spec.units is None else spec.meters_per_unit
        return cls(spec.joint_order or "openpose21", spec.axes or "opencv", meters_per_unit, planned)

    def joints(self, openpose_m: Array) -> Array:
        """(N, 21, 3) OpenPose joints in OpenCV axes, meters -> the stored order, axes and unit."""
        return self.ordered(openpose_m) * AXES_TO_OPENCV[self.axes] / self.meters_per_unit

    def points(self, points_m: Array) -> Array:
        """(N, K, 3) alike, without an order."""
        return points_m * AXES_TO_OPENCV[self.axes] / self.meters_per_unit

    def ordered(self, openpose: Array) -> Array:
        """(N, 21, ...) in OpenPose order -> the stored one."""
        stored = np.empty_like(openpose)
        stored[:, list(JOINT_ORDERS[self.joint_order])] = openpose
        return stored

    def in_official_order(self, predictions: Predictions, values: Array) -> Array:
        """(N, ...) as predicted -> (planned, ...) float64 in the official order; NaN where there is no prediction."""
        rows = np.array([origin_of(origin, "index") for origin in predictions.origin], np.int64)
        stored = np.full((max(self.planned, int(rows.max()) + 1), *values.shape[1:]), np.nan)
        stored[rows] = values
        return stored


def origin_of(origin: Mapping[str, object], name: str) -> object:
    """One of a sample's own ids; SubmissionError where the shards do not know it."""
    value = origin.get(name)
    if value is None:
        raise SubmissionError(
            f"a sample's origin has no {name}, so its place in the official order is unknown (origin: {dict(origin)}); "
            "build the shards from the complete dataset"
        )
    return value


def npz_bytes(**arrays: Array | Sequence) -> bytes:
    """A compressed .npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
