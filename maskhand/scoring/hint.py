"""HInt: 2D keypoints of wild images, scored as HaMeR's evaluation does: PCK of all, visible and occluded joints.

The size that thresholds are a fraction of is the longer side of the annotation's box in pixels (`scale` of HaMeR's
files), whatever crop a method used. Every keypoint stays in the original image; left hands are not mirrored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS, OPENPOSE_21
from maskhand.metrics.pck import MIN_CONFIDENCE, PCK_THRESHOLDS, CorrectKeypoints
from maskhand.scoring.format import Format, GroundTruth
from maskhand.scoring.io.npz import Npz
from maskhand.scoring.keypoint_diagnostics import diagnose_keypoints
from maskhand.scoring.plausible import check_boxes, check_numbers
from maskhand.scoring.predictions import Layout, Predictions, npz_bytes
from maskhand.scoring.scores import ScoreError, Scores, count_warning, failed_warning

STATES = {"all": "all", "vis": "visible", "occ": "occluded"}
"""Ending of the file -> ending of the key."""
_SCALE_UNIT_PX = 200.0
_NORMALIZED = 2.0
"""Coordinates of a normalized image or crop stay below it."""


def score_keypoints(labels: GroundTruth, pred: Path) -> Scores:
    """labels: folder with one *_all.npz, *_vis.npz, *_occ.npz, or such a path without the ending; pred: .npz.

    pred holds keypoints_2d_px (N, 21, 2) in the order of the ground truth. Raises ScoreError for files that cannot be
    scored.
    """
    files = _files(labels.path)
    points_px = Npz(pred).read("keypoints_2d_px", NUM_JOINTS, 2)
    broken = np.zeros(len(points_px), bool)
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {"samples": len(points_px)}
    per_joint: dict[str, Array] = {}
    warnings = count_warning(len(points_px), labels.official)
    for state, file in files.items():
        target = file.read("hand_keypoints_2d", NUM_JOINTS, 3)
        size_px = _size_px(file)
        if not len(points_px) == len(target) == len(size_px):
            raise ScoreError(
                f"{pred}: keypoints_2d_px has {len(points_px):,} samples, {file.path.name} {len(target):,}; they are "
                "compared by position, so write one prediction per sample in the same order"
            )
        seen = target[..., 2] > MIN_CONFIDENCE
        _check_points(pred, "keypoints_2d_px", points_px, seen)
        _check_points(file.path, "hand_keypoints_2d", target[..., :2], seen)
        if len(gone := np.flatnonzero((seen & ~np.isfinite(target).all(-1)).any(1))):
            raise ScoreError(
                f"{file.path}: hand_keypoints_2d of sample {gone[0]} is not finite where it counts (confidence above "
                f"{MIN_CONFIDENCE}); get the file again"
            )
        counted = seen.any(1)
        if len(wrong := np.flatnonzero(counted & ~((size_px > 0) & np.isfinite(size_px)))):
            raise ScoreError(
                f"{file.path}: scale of sample {wrong[0]} is a box of {size_px[wrong[0]]:g} px, expected the size of "
                "the hand's box in pixels"
            )
        check_boxes(str(file.path), size_px, target[..., :2], seen)
        if state == "all":
            _check_unit(pred, points_px, size_px)
            warnings += diagnose_keypoints(points_px, target[..., :2], seen, size_px)
        found = CorrectKeypoints.of(points_px, target[..., :2], target[..., 2], size_px)
        names = [f"pck_{round(100 * threshold):03d}_{state}" for threshold in PCK_THRESHOLDS]
        per_joint |= dict(zip(names, found.pck_by_joint, strict=True))
        # HaMeR's program averages all 21 joints: with one that is never annotated it has no number, and so have we
        metrics |= {name: float(per_joint[name].mean()) for name in names}
        metrics[f"epe_{state}_px"], per_joint[f"epe_{state}_px"] = found.error_px.mean, found.error_px.values
        counts[f"keypoints_{state}"] = int(found.annotated.sum())
        warnings += _without_annotation(found, state)
        broken |= ((~np.isfinite(points_px)).any(-1) & seen).any(1)
    counts["not_finite"] = int(broken.sum())
    return Scores(
        benchmark="hint",
        metrics=metrics,
        counts=counts,
        per_joint=per_joint,
        joints=OPENPOSE_21,
        warnings=[*warnings, *failed_warning(int(broken.sum()), "counted as incorrect")],
    )


def _without_annotation(found: CorrectKeypoints, state: str) -> list[str]:
    """Why there is no PCK, and what it is over the joints that are annotated."""
    never = [name for name, count in zip(OPENPOSE_21, found.annotated, strict=True) if not count]
    if not never:
        return []
    if len(never) == NUM_JOINTS:
        return [f"pck_*_{state}: no joint is annotated in any sample, so there is no number"]
    others = ", ".join(f"{value:.4f}" for value in found.pck)
    return [
        f"pck_*_{state}: never annotated: {', '.join(never)}; so the official mean over 21 joints is not a number, as "
        f"in HaMeR's program. Over the other {NUM_JOINTS - len(never)} joints the three are {others}"
    ]


def _check_points(path: Path, field: str, points_px: Array, seen: Array) -> None:
    check_numbers(points_px, "pixels", lambda row: f"{path}: {field} of sample {row}", seen)


def _check_unit(pred: Path, points_px: Array, size_px: Array) -> None:
    known = np.abs(points_px[np.isfinite(points_px)])
    if len(known) and 0 < np.quantile(known, 0.99) <= _NORMALIZED < np.median(size_px):
        raise ScoreError(
            f"{pred}: keypoints_2d_px lie between -2 and 2: did you write fractions of the image or of a crop? Pixels "
            "of the original image are expected; convert them and score the file again"
        )


def _files(gt: Path) -> dict[str, Npz]:
    """State -> file."""
    folder, stem = (gt, "*_") if gt.is_dir() else (gt.parent, f"{gt.name.rstrip('_')}_")
    files = {}
    for ending, state in STATES.items():
        found = sorted(folder.glob(f"{stem}{ending}.npz"))
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ScoreError(
                f"{gt}: expected one file {stem}{ending}.npz, found {names}; give the path of one set without the "
                "ending, such as FOLDER/TEST_newdays_img"
            )
        files[state] = Npz(found[0])
    return files


def _size_px(file: Npz) -> Array:
    """(N,) longer side of the box, (N,), (N, 1) or (N, 2) in the file; through units of 200 px, as HaMeR's loader."""
    columns = len(file.shape("scale"))
    scale = file.read("scale", *([None] * (columns - 1)))
    return np.asarray((scale.reshape(len(scale), -1) / _SCALE_UNIT_PX).max(1) * _SCALE_UNIT_PX, np.float64)


def write_keypoints(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """`pred.npz`: keypoints_2d_px (N, 21, 2) in the order of HaMeR's files."""
    points = layout.in_official_order(predictions, predictions.joints_px)
    return {"pred.npz": npz_bytes(keypoints_2d_px=points.astype(np.float32))}


HINT = Format(score_keypoints, write_keypoints)
