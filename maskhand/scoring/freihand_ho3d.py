"""FreiHAND and HO-3D: joints and meshes in JSON, scored as FreiHAND's `eval.py` and HO-3D's `eval.py` do.

Both programs are one, except that HO-3D adds an alignment by scale and translation. Files and units are the official
ones (docs/evaluation.md); no frame or joint order is converted, for no number depends on them but HO-3D's bone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import FINGERS, MANO_16, NUM_JOINTS, OPENPOSE_21
from maskhand.metrics.accumulate import Addable, Means, PointErrors
from maskhand.metrics.alignment import distances, procrustes_align, scale_translation_align
from maskhand.metrics.fscore import f_scores
from maskhand.scoring.diagnostics import Convention, diagnose
from maskhand.scoring.format import Format, GroundTruth
from maskhand.scoring.io.json_lists import Samples, read_samples
from maskhand.scoring.io.stream import total
from maskhand.scoring.plausible import Unit, check_numbers, check_truth, check_unit
from maskhand.scoring.predictions import Layout, Predictions
from maskhand.scoring.scores import ScoreError, Scores, count_warning, failed_warning

AT_ONCE = 64
"""Samples of a piece: 64 meshes are 1.2 MB, and their distances stay in the cache."""


@dataclass(frozen=True)
class MeshFormat:
    """What sets FreiHAND and HO-3D apart."""

    name: str
    joints: tuple[str, ...]
    convention: Convention
    bone: tuple[int, int] | None
    """Joints whose distance sets the scale of the scale-translation alignment; None: there is none."""


_FREIHAND = MeshFormat("freihand", OPENPOSE_21, Convention("meters", "openpose21"), None)
_HO3D = MeshFormat(
    "ho3d",
    (*MANO_16, *(f"{finger}_tip" for finger in FINGERS)),
    Convention("meters", "mano16_tips"),
    (0, 4),
)


@dataclass(frozen=True)
class JointTotals(Addable):
    """Distances of joints: as they are, after Procrustes, after scale and translation (empty without such a bone)."""

    raw: PointErrors
    aligned: PointErrors
    scaled: PointErrors


@dataclass(frozen=True)
class MeshTotals(Addable):
    """Distances of vertices, and F-scores (F@5, F@15, aligned F@5, aligned F@15)."""

    raw: PointErrors
    aligned: PointErrors
    f: Means


def score_meshes(benchmark: MeshFormat, labels: GroundTruth, pred: Path) -> Scores:
    """labels: folder with evaluation_xyz.json and evaluation_verts.json; pred: `[xyz, verts]` JSON, or a folder of it.

    Raises ScoreError for files that cannot be scored. An empty list of verts scores the joints alone.
    """
    gt = labels.path
    if gt.exists() and not gt.is_dir():
        raise ScoreError(
            f"{gt}: expected a folder with evaluation_xyz.json and evaluation_verts.json; give their folder, of an "
            "archive after unpacking it"
        )
    truth = _joints(_truth(gt, "xyz", NUM_JOINTS))
    if not len(truth):
        raise ScoreError(f"{gt / 'evaluation_xyz.json'}: holds no samples")
    check_truth(f"{gt / 'evaluation_xyz.json'}: xyz", truth, benchmark.convention.unit)
    prediction = _Prediction(_prediction_file(pred), len(truth), benchmark.convention.unit)
    check_unit(f"{prediction.path}: xyz", prediction.joints, truth, benchmark.convention.unit)
    joint_totals = joint_errors(prediction.joints, truth, benchmark.bone)
    meshes = prediction.beside(_truth(gt, "verts", None))
    mesh_totals = total(meshes, lambda piece: mesh_errors(*piece)) if prediction.has_meshes else None
    warnings = count_warning(len(truth), labels.official) + diagnose(prediction.joints, truth, benchmark.convention)
    return _scores(benchmark, joint_totals, mesh_totals, warnings, len(prediction.failed))


def joint_errors(joints_m: Array, truth_m: Array, bone: tuple[int, int] | None) -> JointTotals:
    """(N, 21, 3) each, finite."""
    scaled = (
        np.empty((0, joints_m.shape[1]))
        if bone is None
        else distances(scale_translation_align(joints_m, truth_m, *bone), truth_m)
    )
    return JointTotals(
        PointErrors.of(distances(joints_m, truth_m)),
        PointErrors.of(distances(procrustes_align(joints_m, truth_m), truth_m)),
        PointErrors.of(scaled),
    )


def mesh_errors(vertices_m: Array, truth_m: Array) -> MeshTotals:
    """(N, V, 3) each, finite; vertices are aligned by themselves, not with the joints' alignment."""
    aligned = procrustes_align(vertices_m, truth_m)
    return MeshTotals(
        PointErrors.of(distances(vertices_m, truth_m)),
        PointErrors.of(distances(aligned, truth_m)),
        Means.of(np.concatenate([f_scores(vertices_m, truth_m), f_scores(aligned, truth_m)], axis=1)),
    )


class _Prediction:
    """A prediction file, read from front to back: all joints, then the meshes piece by piece beside the true ones."""

    def __init__(self, path: Path, count: int, unit: Unit) -> None:
        self.path, self.count, self.unit = path, count, unit
        self.failed: set[int] = set()
        """Positions of samples that are not finite; they are scored as a hand at the origin, as a list of zeros."""
        self._pieces = read_samples(path, AT_ONCE, xyz=NUM_JOINTS, verts=None)
        joints: list[Array] = []
        self._first_mesh: Samples | None = None
        for piece in self._pieces:
            if piece.section:
                self._first_mesh = piece
                break
            joints.append(self._finite(piece))
        self.joints = np.concatenate(joints) if joints else np.empty((0, NUM_JOINTS, 3))
        self._check("xyz", len(self.joints))

    @property
    def has_meshes(self) -> bool:
        return self._first_mesh is not None

    def beside(self, truth: Iterator[Samples]) -> Iterator[tuple[Array, Array]]:
        """(predicted, true) vertices of the same samples."""
        assert self._first_mesh is not None
        seen = 0
        for true, mine in zip_longest(truth, chain([self._first_mesh], self._pieces)):
            if true is None or mine is None or len(true.values) != len(mine.values):
                seen += len(mine.values) + sum(len(p.values) for p in self._pieces) if mine is not None else 0
                self._check("verts", seen)
                raise ScoreError(f"{self.path}: verts: the ground truth's verts are not as many as its xyz")
            if true.values.shape != mine.values.shape:
                raise ScoreError(
                    f"{self.path}: verts: a mesh has {mine.values.shape[1]} vertices, expected "
                    f"{true.values.shape[1]} as in the ground truth; other meshes cannot be compared vertex by vertex"
                )
            vertices = self._finite(mine)
            if not seen:
                check_unit(f"{self.path}: verts", vertices, true.values, self.unit)
            seen += len(vertices)
            yield vertices, true.values

    def _finite(self, piece: Samples) -> Array:
        _check_numbers(self.path, ("xyz", "verts")[piece.section], piece, self.unit)
        finite = np.isfinite(piece.values).all((1, 2))
        self.failed |= {piece.first + int(k) for k in (~finite).nonzero()[0]}
        return np.where(finite[:, None, None], piece.values, 0.0)

    def _check(self, field: str, found: int) -> None:
        if found != self.count:
            raise ScoreError(
                f"{self.path}: {field} has {found:,} samples, the ground truth {self.count:,}; they are compared by "
                "position, so write one prediction per sample in the official order"
            )


def _truth(gt: Path, field: str, points: int | None) -> Iterator[Samples]:
    path = gt / f"evaluation_{field}.json"
    for piece in read_samples(path, AT_ONCE, **{field: points}):
        broken = (~np.isfinite(piece.values)).any((1, 2)).nonzero()[0]
        if len(broken):
            raise ScoreError(f"{path}: {field}: sample {piece.first + broken[0]} is not finite; get the file again")
        _check_numbers(path, field, piece, "meters")
        yield piece


def _check_numbers(path: Path, field: str, piece: Samples, unit: Unit) -> None:
    check_numbers(piece.values, unit, lambda row: f"{path}: {field}: sample {piece.first + row}")


def _joints(pieces: Iterator[Samples]) -> Array:
    parts = [piece.values for piece in pieces]
    return np.concatenate(parts) if parts else np.empty((0, NUM_JOINTS, 3))


def _prediction_file(pred: Path) -> Path:
    """The file itself; of a folder its pred.json, its pred.zip, or its only .json."""
    if not pred.is_dir():
        return pred
    named = [pred / name for name in ("pred.json", "pred.zip") if (pred / name).is_file()]
    files = named[:1] or sorted(pred.glob("*.json"))
    if len(files) != 1:
        raise ScoreError(f"{pred}: expected a pred.json in this folder, found {len(files)} .json files; name the file")
    return files[0]


def _scores(
    benchmark: MeshFormat, joints: JointTotals, meshes: MeshTotals | None, warnings: list[str], failed: int
) -> Scores:
    samples = int(joints.raw.count.max())
    metrics = {
        "mpjpe_mm": 1e3 * joints.raw.mean,
        "pa_mpjpe_mm": 1e3 * joints.aligned.mean,
        "mpvpe_mm": np.nan,
        "pa_mpvpe_mm": np.nan,
        "auc_joints": joints.raw.pck_auc,
        "auc_joints_aligned": joints.aligned.pck_auc,
        "auc_vertices": np.nan,
        "auc_vertices_aligned": np.nan,
        "f_5mm": np.nan,
        "f_15mm": np.nan,
        "f_5mm_aligned": np.nan,
        "f_15mm_aligned": np.nan,
    }
    per_joint = {"mpjpe_mm": joints.raw.means, "pa_mpjpe_mm": joints.aligned.means}
    if meshes is not None:
        metrics |= {
            "mpvpe_mm": 1e3 * meshes.raw.mean,
            "pa_mpvpe_mm": 1e3 * meshes.aligned.mean,
            "auc_vertices": meshes.raw.pck_auc,
            "auc_vertices_aligned": meshes.aligned.pck_auc,
        }
        metrics |= dict(zip(("f_5mm", "f_15mm", "f_5mm_aligned", "f_15mm_aligned"), meshes.f.values, strict=True))
    if benchmark.bone is not None:
        metrics |= {
            "scale_translation_mpjpe_mm": 1e3 * joints.scaled.mean,
            "auc_joints_scale_translation": joints.scaled.pck_auc,
        }
        per_joint["scale_translation_mpjpe_mm"] = joints.scaled.means
    return Scores(
        benchmark=benchmark.name,
        metrics=metrics,
        counts={"samples": samples, "meshes": samples if meshes is not None else 0, "not_finite": failed},
        per_joint={name: 1e3 * values for name, values in per_joint.items()},
        joints=benchmark.joints,
        warnings=[
            *warnings,
            *failed_warning(failed, "scored as a hand of zeros"),
            *([] if meshes is not None else ["the prediction holds no verts: no number about meshes"]),
        ],
    )


def write_meshes(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    """`pred.json`: `[xyz, verts]`, a list per image."""
    joints, vertices = layout.joints(predictions.joints_cam_m), layout.points(predictions.vertices_cam_m)
    lists = [np.nan_to_num(layout.in_official_order(predictions, v), nan=0.0) for v in (joints, vertices)]
    # float32 numbers are told apart by nine digits; a micrometer is enough and halves the file
    text = ", ".join(json.dumps(np.round(stored, 7).tolist()) for stored in lists)
    return {"pred.json": f"[{text}]\n".encode()}


FREIHAND = Format(partial(score_meshes, _FREIHAND), write_meshes)
HO3D = Format(partial(score_meshes, _HO3D), write_meshes)
