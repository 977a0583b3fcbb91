"""InterHand2.6M: two hands per sample, scored as the official dataset's `evaluate` does.

Each hand is aligned at its own wrist, nothing else. A hand whose wrist is not annotated has no valid joints. Errors are
averaged per joint over samples (42 joints, the wrists among them with error 0), then over joints; for sequences with
one hand, with interacting hands, and both pooled. MRRPE is the error of the left wrist relative to the right one, over
interacting samples with both wrists annotated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import INTERHAND_HANDS, OPENPOSE_FROM_INTERHAND
from maskhand.metrics.accumulate import Addable, Means
from maskhand.metrics.alignment import distances
from maskhand.scoring.diagnostics import BETTER, Convention, diagnose
from maskhand.scoring.format import Format, GroundTruth
from maskhand.scoring.io.npz import Npz
from maskhand.scoring.io.stream import total
from maskhand.scoring.plausible import check_numbers, check_truth, check_unit
from maskhand.scoring.predictions import Layout, Predictions, npz_bytes, origin_of
from maskhand.scoring.scores import ScoreError, Scores, count_warning, failed_warning, joint_warning

HANDS = tuple(INTERHAND_HANDS.values())
WRISTS = tuple(hand.start + OPENPOSE_FROM_INTERHAND[0] for hand in HANDS)
"""Right, left."""
HAND_TYPES = ("right", "left", "interacting")
JOINTS = tuple(
    f"{side}_{name}"
    for side in ("right", "left")
    for name in (
        *(f"{finger}{k}" for finger in ("thumb", "index", "middle", "ring", "pinky") for k in (4, 3, 2, 1)),
        "wrist",
    )
)
CONVENTION = Convention("millimeters", "interhand21")
AT_ONCE = 2048


@dataclass(frozen=True)
class Totals(Addable):
    """Millimeters: (42,) joints of single hands and of interacting ones, and the relative wrist position (1,)."""

    single: Means
    interacting: Means
    wrists: Means
    not_finite: Array
    """(1,) samples."""


def score_arrays(labels: GroundTruth, pred: Path) -> Scores:
    """labels: .npz with joint_cam_mm (N, 42, 3), joint_valid (N, 42), hand_type (N,); pred: .npz with joint_cam_mm.

    Raises ScoreError for files that cannot be scored.
    """
    gt = labels.path
    truth, prediction = Npz(gt), Npz(pred)
    samples = truth.shape("joint_cam_mm")[0]
    for file, field in ((truth, "joint_valid"), (truth, "hand_type"), (prediction, "joint_cam_mm")):
        found = (file.shape(field) or (0,))[0]
        if found != samples:
            raise ScoreError(
                f"{file.path}: {field} has {found:,} samples, the ground truth's joint_cam_mm {samples:,}; "
                "they are compared by position"
            )
    types = _hand_types(truth)
    diagnoses: list[str] = []

    def pieces() -> Iterator[tuple[Array, Array, Array, Array]]:
        first = 0
        streams = (file.rows("joint_cam_mm", 42, 3, at_once=AT_ONCE) for file in (prediction, truth))
        for mine, true, valid in zip(*streams, _valid(truth), strict=True):
            valid = _with_wrist(valid)
            for file, joints_mm in ((prediction, mine), (truth, true)):
                _check_numbers(file.path, first, joints_mm, valid)
            if len(broken := np.flatnonzero((valid & ~np.isfinite(true).all(-1)).any(1))):
                raise ScoreError(
                    f"{gt}: joint_cam_mm of sample {first + broken[0]} is not finite where joint_valid says that it is "
                    "annotated; write it again"
                )
            diagnoses.extend([] if first else _diagnose(gt, pred, mine, true, valid))
            yield mine, true, valid, types[first : first + len(true)] == "interacting"
            first += len(true)

    totals = total(pieces(), lambda piece: joint_errors(*piece))
    if totals is None:
        raise ScoreError(f"{gt}: joint_cam_mm holds no samples")
    pooled = totals.single + totals.interacting
    failed, pairs = int(totals.not_finite[0]), int(totals.wrists.count[0])
    metrics = {
        "mpjpe_all_mm": pooled.mean,
        "mpjpe_single_mm": totals.single.mean,
        "mpjpe_interacting_mm": totals.interacting.mean,
        "mrrpe_mm": totals.wrists.mean,
    }
    groups = {"mpjpe_all_mm": pooled, "mpjpe_single_mm": totals.single, "mpjpe_interacting_mm": totals.interacting}
    return Scores(
        benchmark="interhand",
        metrics=metrics,
        counts={
            "samples": samples,
            "single": int((types != "interacting").sum()),
            "interacting": int((types == "interacting").sum()),
            "mrrpe_samples": pairs,
            "not_finite": failed,
        },
        per_joint={name: means.values for name, means in groups.items()},
        joints=JOINTS,
        warnings=[
            *count_warning(samples, labels.official),
            *failed_warning(failed, "replaced by zeros where they are annotated"),
            *(line for name, means in groups.items() for line in joint_warning(means.count, JOINTS, name)),
            *([] if pairs else ["mrrpe_mm: no interacting sample has both wrists annotated, so there is no number"]),
            *diagnoses,
        ],
    )


def joint_errors(joints_mm: Array, truth_mm: Array, valid: Array, interacting: Array) -> Totals:
    """(N, 42, 3), (N, 42, 3), (N, 42) bool, (N,) bool; what is not valid may hold anything."""
    valid = _with_wrist(valid)
    broken = (~np.isfinite(joints_mm)).any(-1) & valid
    mine = np.where(np.isfinite(joints_mm).all(-1, keepdims=True), joints_mm, 0.0).astype(np.float64)
    true = np.where(valid[..., None], truth_mm, 0.0).astype(np.float64)
    both = interacting & valid[:, WRISTS[0]] & valid[:, WRISTS[1]]
    apart = [(x[:, WRISTS[1]] - x[:, WRISTS[0]])[:, None] for x in (mine, true)]
    wrists = np.where(both[:, None], distances(*apart), np.nan)
    for hand, wrist in zip(HANDS, WRISTS, strict=True):
        mine[:, hand] -= mine[:, wrist, None].copy()
        true[:, hand] -= true[:, wrist, None].copy()
    errors = np.where(valid, distances(mine, true), np.nan)
    return Totals(
        Means.of(np.where(interacting[:, None], np.nan, errors)),
        Means.of(np.where(interacting[:, None], errors, np.nan)),
        Means.of(wrists),
        np.array([broken.any(1).sum()]),
    )


def _check_numbers(path: Path, first: int, joints_mm: Array, valid: Array) -> None:
    check_numbers(joints_mm, CONVENTION.unit, lambda row: f"{path}: joint_cam_mm of sample {first + row}", valid)


def _with_wrist(valid: Array) -> Array:
    """(N, 42) without the joints of hands whose wrist is not valid."""
    valid = valid.copy()
    for hand, wrist in zip(HANDS, WRISTS, strict=True):
        valid[:, hand] &= valid[:, wrist, None]
    return valid


def _diagnose(gt: Path, pred: Path, joints_mm: Array, truth_mm: Array, valid: Array) -> list[str]:
    """About the hands whose joints are all annotated; ScoreError for another unit."""
    swapped = _swapped(*(x[valid.all(1)] for x in (joints_mm, truth_mm)))
    hands = [(joints_mm[whole, hand], truth_mm[whole, hand]) for hand in HANDS for whole in [valid[:, hand].all(1)]]
    mine, true = (np.concatenate(parts) for parts in zip(*hands, strict=True))
    finite = np.isfinite(mine).all((1, 2))
    mine, true = mine[finite].astype(np.float64), true[finite].astype(np.float64)
    check_truth(f"{gt}: joint_cam_mm", true, CONVENTION.unit)
    check_unit(f"{pred}: joint_cam_mm", mine, true, CONVENTION.unit)
    return swapped or diagnose(mine, true, CONVENTION)


def _swapped(joints_mm: Array, truth_mm: Array) -> list[str]:
    """A sentence where the left hand was written first, given samples (n, 42, 3) with both hands."""
    finite = np.isfinite(joints_mm).all((1, 2))
    mine, true = joints_mm[finite].astype(np.float64), truth_mm[finite].astype(np.float64)
    if not len(mine):
        return []
    now, exchanged = (
        float(np.median(distances(_at_wrists(x), _at_wrists(true)))) for x in (mine, np.roll(mine, -HANDS[1].start, 1))
    )
    if exchanged >= BETTER * now:
        return []
    return [
        f"read with the left hand first, the predictions fit far better (errors about the wrists fall from {now:.1f} "
        f"to {exchanged:.1f} mm): the right hand is expected first"
    ]


def _at_wrists(joints_mm: Array) -> Array:
    """(n, 42, 3), each hand relative to its own wrist."""
    return np.concatenate(
        [joints_mm[:, hand] - joints_mm[:, wrist, None] for hand, wrist in zip(HANDS, WRISTS, strict=True)], axis=1
    )


def _hand_types(truth: Npz) -> Array:
    """(N,) strings; the official code's pairs (right, left) of 0 and 1 are taken too."""
    if len(truth.shape("hand_type")) == 2:
        right, left = truth.read("hand_type", 2).T != 0
        types = np.where(right & left, "interacting", np.where(right, "right", np.where(left, "left", "neither")))
    else:
        types = truth.read_text("hand_type")
    unknown = types[~np.isin(types, HAND_TYPES)]
    if len(unknown):
        raise ScoreError(f"{truth.path}: hand_type holds {str(unknown[0])!r}, expected {', '.join(HAND_TYPES)}")
    return types


def _valid(truth: Npz) -> Iterator[Array]:
    """(n, 42) bool; the annotation files write (N, 42, 1), which is taken too."""
    row = truth.shape("joint_valid")[1:]
    for part in truth.rows("joint_valid", *((42, 1) if row == (42, 1) else (42,)), at_once=AT_ONCE):
        if not np.isfinite(part).all():
            raise ScoreError(f"{truth.path}: joint_valid holds a number that is not finite, expected 0 or 1")
        yield part.reshape(-1, 42) != 0


def write_arrays(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """`pred.npz`: joint_cam_mm (N, 42, 3) of both hands, the right one first, in ascending order of annotations.

    The official files are not arrays in this form, so the truth of the same samples is written beside it.
    """
    ids = np.array([origin_of(origin, "annotation") for origin in predictions.origin], np.int64)
    annotations, rows = np.unique(ids, return_inverse=True)
    hand = np.array([0 if side == "right" else 1 for side in predictions.side])
    arrays = {}
    for name, joints_m in (("pred", predictions.joints_cam_m), ("truth", predictions.truth_cam_m)):
        both = np.zeros((len(annotations), 2, 21, 3))
        both[rows, hand] = layout.ordered(1e3 * joints_m.astype(np.float64))
        arrays[name] = both.reshape(-1, 42, 3)
    valid = np.zeros((len(annotations), 2, 21), bool)
    valid[rows, hand] = layout.ordered(~np.isnan(predictions.truth_cam_m).any(-1))
    types = np.full(len(annotations), "interacting", dtype="<U11")
    types[rows] = [str(origin_of(origin, "hand_type")) for origin in predictions.origin]
    truth = npz_bytes(
        annotation_id=annotations,
        joint_cam_mm=np.nan_to_num(arrays["truth"], nan=0.0),
        joint_valid=valid.reshape(-1, 42),
        hand_type=types,
    )
    return {"pred.npz": npz_bytes(annotation_id=annotations, joint_cam_mm=arrays["pred"]), "truth.npz": truth}


INTERHAND = Format(score_arrays, write_arrays)
