"""DexYCB: joints in text lines, scored as the toolkit's `hpe_eval.py` does.

Millimeters; frames without a hand (all joints -1) are left out; predictions of other frames are allowed. Three numbers,
each with its area under the curve from 0 to 50 mm: as predicted, relative to the wrist, after Procrustes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, cast

import numpy as np

from maskhand.adapters.base import RawDataError
from maskhand.adapters.layouts.dexycb_index import Frame, read_index
from maskhand.adapters.layouts.dexycb_label import NO_HAND, label_uri, read_label
from maskhand.adapters.layouts.dexycb_splits import SELECTIONS
from maskhand.arrays import Array
from maskhand.conventions import NUM_JOINTS, OPENPOSE_21
from maskhand.json_text import why_not_json
from maskhand.metrics.accumulate import Addable, PointErrors
from maskhand.metrics.alignment import distances, procrustes_align, root_relative
from maskhand.sample import SampleError
from maskhand.scoring.diagnostics import Convention, diagnose
from maskhand.scoring.format import Format, GroundTruth
from maskhand.scoring.io.files import unpacked
from maskhand.scoring.io.npz import Npz
from maskhand.scoring.io.stream import total
from maskhand.scoring.plausible import check_numbers, check_truth, check_unit
from maskhand.scoring.predictions import Layout, Predictions
from maskhand.scoring.scores import ScoreError, Scores, count_warning, failed_warning

CONVENTION = Convention("millimeters", "openpose21")
AUC_LIMIT_MM = 50.0
AT_ONCE = 1024
_LINES = 4096
_LARGEST_ID = 2**53
"""Larger numbers are not all told apart in a table of floats."""


@dataclass(frozen=True)
class Totals(Addable):
    """Distances of joints in millimeters."""

    absolute: PointErrors
    root_relative: PointErrors
    aligned: PointErrors


def score_lines(labels: GroundTruth, pred: Path) -> Scores:
    """labels: .npz with image_id (N,) and joint_3d_m (N, 21, 3), or the dataset's own folder and a split of it; pred: a
    line `id,63 numbers in mm` per frame.

    Joints are meters as published, all -1 where there is no hand. Raises ScoreError for files that cannot be scored,
    such as a prediction without one of the frames, and RawDataError for a folder whose frames cannot be counted.
    """
    gt = labels.path
    truth = read_folder(gt, labels.split) if gt.is_dir() else read_npz(gt)
    ids, joints_mm = read_predictions(pred)
    finite = np.isfinite(joints_mm).all((1, 2))
    joints_mm[~finite] = 0.0
    frames = {"no_hand": 0, "scored": 0, "not_finite": 0}
    diagnoses: list[str] = []

    def pieces() -> Iterator[tuple[Array, Array]]:
        for image_ids, joints_m in truth:
            hand = ~(joints_m == NO_HAND).all((1, 2))
            # in the file's own precision, as the official program does before it converts to float64
            true_mm = (joints_m[hand] * 1000).astype(np.float64)
            named = image_ids[hand]
            broken = named[~np.isfinite(true_mm).all((1, 2))]
            if len(broken):
                raise ScoreError(f"{gt}: joint_3d_m of image_id {broken[0]} is not finite; write it again")
            check_numbers(true_mm, CONVENTION.unit, partial(_place_of_label, gt, named))
            rows = _rows_of(named, ids, pred)
            frames["no_hand"] += int((~hand).sum())
            frames["scored"] += len(rows)
            frames["not_finite"] += int((~finite[rows]).sum())
            if not len(rows):
                continue
            if frames["scored"] == len(rows):  # the first of them
                check_truth(f"{gt}: joint_3d_m", joints_m[hand], "meters")
                check_unit(str(pred), joints_mm[rows], true_mm, CONVENTION.unit)
                diagnoses.extend(diagnose(joints_mm[rows], true_mm, CONVENTION))
            yield joints_mm[rows], true_mm

    found = total(pieces(), lambda piece: joint_errors(*piece))
    if found is None:
        raise ScoreError(f"{pred}: the ground truth has no frame with a hand to score it with")
    return Scores(
        benchmark="dexycb",
        metrics={
            "absolute_mpjpe_mm": found.absolute.mean,
            "root_relative_mpjpe_mm": found.root_relative.mean,
            "pa_mpjpe_mm": found.aligned.mean,
            "absolute_auc": found.absolute.pck_auc,
            "root_relative_auc": found.root_relative.pck_auc,
            "pa_auc": found.aligned.pck_auc,
        },
        counts={
            "samples": frames["scored"],
            "no_hand": frames["no_hand"],
            "not_finite": frames["not_finite"],
            "predictions": len(ids),
        },
        per_joint={
            "absolute_mpjpe_mm": found.absolute.means,
            "root_relative_mpjpe_mm": found.root_relative.means,
            "pa_mpjpe_mm": found.aligned.means,
        },
        joints=OPENPOSE_21,
        warnings=[
            *count_warning(frames["scored"] + frames["no_hand"], labels.official),
            *failed_warning(frames["not_finite"], "scored as a hand of zeros"),
            *diagnoses,
        ],
    )


def _place_of_label(gt: Path, image_ids: Array, row: int) -> str:
    return f"{gt}: joint_3d_m of image_id {image_ids[row]}"


def read_npz(gt: Path) -> Iterator[tuple[Array, Array]]:
    """Pieces of an .npz: image ids (n,) int64 and joints (n, 21, 3) in the file's precision."""
    file = Npz(gt)
    stored = file.read("image_id")
    image_ids = stored.astype(np.int64)
    if (image_ids != stored).any():
        raise ScoreError(f"{gt}: image_id {stored[image_ids != stored][0]} is not a whole number")
    if len(twice := np.flatnonzero(np.diff(np.sort(image_ids)) == 0)):
        raise ScoreError(f"{gt}: image_id {np.sort(image_ids)[twice[0]]} is there twice; each frame has one row")
    frames = file.shape("joint_3d_m")[0]
    if frames != len(image_ids):
        raise ScoreError(f"{gt}: joint_3d_m has {frames} rows, image_id {len(image_ids)}; they belong together")
    for k, joints_m in enumerate(file.rows("joint_3d_m", NUM_JOINTS, 3, at_once=AT_ONCE)):
        yield image_ids[k * AT_ONCE :][: len(joints_m)], joints_m


def read_folder(folder: Path, split: str) -> Iterator[tuple[Array, Array]]:
    """The same pieces of the dataset's own label files. Ids count the split's frames in the official order.

    Raises RawDataError when a subject of the split is absent, for then ids would mean other frames, and ScoreError when
    a label cannot be read.
    """
    if split not in SELECTIONS:
        raise ScoreError(f"DexYCB has no split {split!r}; its splits are {', '.join(SELECTIONS)}")
    index = read_index(str(folder), SELECTIONS[split])
    if index.absent_subjects:
        absent = ", ".join(f"{subject:02d}" for subject in index.absent_subjects)
        raise RawDataError(
            f"{folder}: subjects {absent} of {split} are absent, so image ids cannot be counted; "
            "unpack them, or give an .npz with image_id and joint_3d_m"
        )
    frames, first = iter(index), 0
    while piece := [_stored_joints(str(folder), frame) for frame in islice(frames, AT_ONCE)]:
        yield np.arange(first, first + len(piece)), np.stack(piece)
        first += len(piece)


def _stored_joints(folder: str, frame: Frame) -> Array:
    try:
        return read_label(f"frame {frame.number} of {frame.sequence.name}", label_uri(folder, frame)).joints
    except SampleError as error:
        raise ScoreError(str(error)) from None


def joint_errors(joints_mm: Array, truth_mm: Array) -> Totals:
    """(N, 21, 3) each, finite."""
    pairs = (
        (joints_mm, truth_mm),
        (root_relative(joints_mm), root_relative(truth_mm)),
        (procrustes_align(joints_mm, truth_mm), truth_mm),
    )
    return Totals(*(PointErrors.of(distances(a, b), AUC_LIMIT_MM) for a, b in pairs))


def read_predictions(path: Path) -> tuple[Array, Array]:
    """(N,) ids in ascending order and (N, 21, 3) millimeters; of lines with the same id the last one counts."""
    blocks = []
    try:
        with (
            unpacked(path, ".txt", "results.txt") as stream,
            io.TextIOWrapper(cast(IO[bytes], stream), encoding="utf-8-sig") as file,
        ):
            first = 1
            while lines := list(islice(file, _LINES)):
                blocks.append(_parsed(lines, first, path))
                first += len(lines)
    except UnicodeDecodeError as error:
        raise ScoreError(f"{path}: {why_not_json(error)}; expected lines of numbers") from None
    table = np.concatenate(blocks) if blocks else np.empty((0, 64))
    ids, last = np.unique(table[::-1, 0], return_index=True)
    return ids.astype(np.int64), table[::-1][last, 1:].reshape(-1, NUM_JOINTS, 3)


def _parsed(lines: list[str], first: int, path: Path) -> Array:
    """(n, 64) of lines that are not blank."""
    rows = [(number, line.split(",")) for number, line in enumerate(lines, first) if line.strip()]
    for number, words in rows:
        if len(words) != 64:
            raise ScoreError(
                f"{path}: line {number} has {len(words)} values between commas, expected 64: id and 21 x 3 mm, with "
                f"decimal points; it begins with {','.join(words)[:30].strip()!r}"
            )
    try:
        table = np.array([words for _, words in rows], np.float64).reshape(-1, 64)
    except ValueError:
        number, word = next((n, word) for n, words in rows for word in words if not _is_number(word))
        raise ScoreError(f"{path}: line {number}: {word.strip()!r} is no number; is it a header? Remove it") from None
    whole = (table[:, 0] == np.round(table[:, 0])) & (np.abs(table[:, 0]) < _LARGEST_ID)
    if not whole.all():
        number, words = rows[int(np.argmin(whole))]
        raise ScoreError(f"{path}: line {number} starts with {words[0]!r}, expected an image id")
    check_numbers(table[:, 1:, None], CONVENTION.unit, lambda row: f"{path}: line {rows[row][0]}")
    return table


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _rows_of(wanted: Array, ids: Array, pred: Path) -> Array:
    """Positions of the wanted ids."""
    rows = np.searchsorted(ids, wanted)
    missing = ids[np.minimum(rows, len(ids) - 1)] != wanted if len(ids) else np.ones(len(wanted), bool)
    if missing.any():
        raise ScoreError(
            f"{pred}: no prediction for image_id {wanted[missing][0]} (and {missing.sum() - 1} others nearby); "
            "every frame with a hand needs a line"
        )
    return rows


def write_lines(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """`results.txt`: a line per frame, those without a hand included, which the official program skips."""
    joints_mm = 1e3 * np.nan_to_num(layout.in_official_order(predictions, predictions.joints_cam_m), nan=0.0)
    lines = [f"{k}," + ",".join(f"{v:.4f}" for v in frame.ravel()) for k, frame in enumerate(joints_mm)]
    return {"results.txt": ("\n".join(lines) + "\n").encode()}


DEXYCB = Format(score_lines, write_lines)
