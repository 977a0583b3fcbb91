"""Predictions as files in the benchmarks' official formats, which `maskhand score` and the official programs read.

Shards are shuffled; a submission is in the official order, which the samples' `origin` tells. Lengths, axes and joint
order are those of the dataset's card. A failed sample is written as zeros (HInt: NaN, which counts as incorrect), as is
one that the shards had to leave out; InterHand2.6M's files lack the latter, prediction and truth alike.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskhand.conventions import AXES_TO_OPENCV, JOINT_ORDERS
from maskhand.errors import MaskhandError
from maskhand.evaluation.predictions import Predictions

Array = np.ndarray


class SubmissionError(MaskhandError, ValueError):
    """Predictions that cannot be put into the official order; the message says what their shards lack."""


@dataclass(frozen=True)
class Layout:
    """How a benchmark writes hands; from its dataset's card."""

    format: str
    """A key of WRITERS."""
    joint_order: str
    """A key of JOINT_ORDERS."""
    axes: str
    """A key of AXES_TO_OPENCV."""
    meters_per_unit: float
    planned: int
    """Hands of the split, those that the shards left out included."""

    def joints(self, openpose_m: Array) -> Array:
        """(N, 21, 3) OpenPose joints in OpenCV axes, meters -> the stored order, axes and unit."""
        return _reordered(openpose_m, self.joint_order) * AXES_TO_OPENCV[self.axes] / self.meters_per_unit

    def points(self, points_m: Array) -> Array:
        """(N, K, 3) alike, without an order."""
        return points_m * AXES_TO_OPENCV[self.axes] / self.meters_per_unit


def write(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """File name -> content. Raises SubmissionError where the shards do not know the official positions."""
    return WRITERS[layout.format](predictions, layout)


def mesh_json(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """FreiHAND and HO-3D: `[xyz, verts]`, a list per image."""
    joints, vertices = layout.joints(predictions.joints_cam_m), layout.points(predictions.vertices_cam_m)
    lists = [np.nan_to_num(_in_order(predictions, layout, values), nan=0.0) for values in (joints, vertices)]
    # float32 numbers are told apart by nine digits; a micrometer is enough and halves the file
    text = ", ".join(json.dumps(np.round(stored, 7).tolist()) for stored in lists)
    return {"pred.json": f"[{text}]\n".encode()}


def dexycb_text(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """DexYCB: a line `image id, 63 numbers in mm` per frame, those without a hand included: the program skips them."""
    joints_mm = 1e3 * np.nan_to_num(_in_order(predictions, layout, predictions.joints_cam_m), nan=0.0)
    lines = [f"{k}," + ",".join(f"{v:.4f}" for v in frame.ravel()) for k, frame in enumerate(joints_mm)]
    return {"results.txt": ("\n".join(lines) + "\n").encode()}


def hint_npz(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """HInt: keypoints_2d_px (N, 21, 2) in the order of HaMeR's files."""
    points = _in_order(predictions, layout, predictions.joints_px)
    return {"pred.npz": _npz(keypoints_2d_px=points.astype(np.float32))}


def interhand_npz(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """InterHand2.6M: joint_cam_mm (N, 42, 3) of both hands, the right one first, in ascending order of annotations.

    The official files are not arrays in this form, so the truth of the same samples is written beside it.
    """
    ids = np.array([_known(origin, "annotation") for origin in predictions.origin], np.int64)
    annotations, rows = np.unique(ids, return_inverse=True)
    hand = np.array([0 if side == "right" else 1 for side in predictions.side])
    arrays = {}
    for name, joints_m in (("pred", predictions.joints_cam_m), ("truth", predictions.truth_cam_m)):
        both = np.zeros((len(annotations), 2, 21, 3))
        both[rows, hand] = _reordered(1e3 * joints_m.astype(np.float64), layout.joint_order)
        arrays[name] = both.reshape(-1, 42, 3)
    valid = np.zeros((len(annotations), 2, 21), bool)
    seen = ~np.isnan(predictions.truth_cam_m).any(-1)
    valid[rows, hand] = _reordered(seen, layout.joint_order)
    types = np.full(len(annotations), "interacting", dtype="<U11")
    types[rows] = [str(_known(origin, "hand_type")) for origin in predictions.origin]
    truth = _npz(
        annotation_id=annotations,
        joint_cam_mm=np.nan_to_num(arrays["truth"], nan=0.0),
        joint_valid=valid.reshape(-1, 42),
        hand_type=types,
    )
    return {"pred.npz": _npz(annotation_id=annotations, joint_cam_mm=arrays["pred"]), "truth.npz": truth}


WRITERS: Mapping[str, Callable[[Predictions, Layout], dict[str, bytes]]] = {
    "freihand": mesh_json,
    "ho3d": mesh_json,
    "dexycb": dexycb_text,
    "hint": hint_npz,
    "interhand": interhand_npz,
}


def _reordered(openpose: Array, joint_order: str) -> Array:
    """(N, 21, ...) OpenPose order -> the stored one."""
    stored = np.empty_like(openpose)
    stored[:, list(JOINT_ORDERS[joint_order])] = openpose
    return stored


def _in_order(predictions: Predictions, layout: Layout, values: Array) -> Array:
    """(N, ...) as predicted -> (planned, ...) float64 in the official order; NaN where there is no prediction."""
    rows = np.array([_known(origin, "index") for origin in predictions.origin], np.int64)
    stored = np.full((max(layout.planned, int(rows.max()) + 1), *values.shape[1:]), np.nan)
    stored[rows] = values
    return stored


def _known(origin: Mapping[str, object], name: str) -> object:
    value = origin.get(name)
    if value is None:
        raise SubmissionError(
            f"a sample's origin has no {name}, so its place in the official order is unknown (origin: {dict(origin)}); "
            "build the shards from the complete dataset"
        )
    return value


def _npz(**arrays: Array | Sequence) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()
