"""Errors of single samples, MPJPE and PA-MPJPE, and point by point: every number can be traced to hands."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from maskhand.arrays import Array
from maskhand.metrics.accumulate import PointErrors, row_means
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.metrics.fscore import F_THRESHOLDS_M, f_scores

MIN_ALIGNED = 4
"""Fewer annotated joints have no error after alignment. A similarity has 7 free numbers: it makes any two joints fit
and leaves a triangle of three, 9 numbers, hardly anything to be wrong in. Four are the fewest that span space."""


@dataclass(frozen=True)
class SampleErrors:
    """Errors of N samples, float64; NaN where a point is not annotated or has nothing to be compared with."""

    joint_m: Array
    """(N, 21) distance of each joint, meters; NaN throughout where the wrist alone is annotated."""
    joint_pa_m: Array
    """(N, 21) the same after Procrustes alignment of the joints; NaN throughout below `MIN_ALIGNED` annotated ones."""
    vertex_m: Array
    """(N, 778); NaN throughout where a sample has no annotated mesh."""
    vertex_pa_m: Array
    """(N, 778) after Procrustes alignment of the vertices, independent of the joints'."""
    f_scores: Array
    """(N, 2) F@5 mm and F@15 mm of the raw vertices."""
    f_scores_pa: Array
    """(N, 2) of the aligned vertices."""

    @classmethod
    def concatenate(cls, parts: list[SampleErrors]) -> SampleErrors:
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.joint_m)

    def per_sample(self) -> dict[str, Array]:
        """One number per sample and metric, (N,): millimeters and F-scores."""
        return {
            "mpjpe_mm": 1e3 * row_means(self.joint_m),
            "pa_mpjpe_mm": 1e3 * row_means(self.joint_pa_m),
            "mpvpe_mm": 1e3 * row_means(self.vertex_m),
            "pa_mpvpe_mm": 1e3 * row_means(self.vertex_pa_m),
            "f5": self.f_scores[:, 0],
            "f15": self.f_scores[:, 1],
            "pa_f5": self.f_scores_pa[:, 0],
            "pa_f15": self.f_scores_pa[:, 1],
        }

    def summary(self) -> dict[str, float]:
        """The set's numbers: errors in millimeters, F-scores and areas in 0..1; NaN where nothing is annotated."""
        raw, aligned = PointErrors.of(self.joint_m), PointErrors.of(self.joint_pa_m)
        mesh, mesh_aligned = PointErrors.of(self.vertex_m), PointErrors.of(self.vertex_pa_m)
        f5, f15 = row_means(self.f_scores.T)
        pa_f5, pa_f15 = row_means(self.f_scores_pa.T)
        values = {
            "mpjpe_mm": 1e3 * raw.mean,
            "pa_mpjpe_mm": 1e3 * aligned.mean,
            "mpvpe_mm": 1e3 * mesh.mean,
            "pa_mpvpe_mm": 1e3 * mesh_aligned.mean,
            "f5": f5,
            "f15": f15,
            "pa_f5": pa_f5,
            "pa_f15": pa_f15,
            "auc_joints": raw.pck_auc,
            "pa_auc_joints": aligned.pck_auc,
            "auc_vertices": mesh.pck_auc,
            "pa_auc_vertices": mesh_aligned.pck_auc,
        }
        return {name: float(value) for name, value in values.items()}


def mpjpe(points: Array, target: Array, valid: Array | None = None) -> Array:
    """(N, P, 3) twice -> (N,) mean position error of a sample's points, in their unit.

    valid (N, P) bool: the points that count, None = all; NaN for a sample without any.
    """
    errors = distances(points, target)
    return errors.mean(1) if valid is None else row_means(np.where(valid, errors, np.nan))


def pa_mpjpe(points: Array, target: Array, valid: Array | None = None, *, reflection: bool = True) -> Array:
    """The same after Procrustes alignment of each sample, see `procrustes_align`."""
    return mpjpe(procrustes_align(points, target, valid, reflection=reflection), target, valid)


def pa_joint_errors(joints_m: Array, true_joints_m: Array, seen: Array, *, reflection: bool = True) -> Array:
    """(N, 21, 3) float64 twice and (N, 21) bool -> (N, 21) meters after Procrustes alignment of the joints; NaN where a
    joint is not annotated, and throughout below `MIN_ALIGNED` annotated ones."""
    aligned = procrustes_align(joints_m, true_joints_m, seen, reflection=reflection)
    fitted = seen & (seen.sum(1, keepdims=True) >= MIN_ALIGNED)
    return np.where(fitted, distances(aligned, true_joints_m), np.nan)


def sample_errors(
    joints_m: Any,
    true_joints_m: Any,
    vertices_m: Any,
    true_vertices_m: Any,
    joints_valid: Any | None = None,
    vertices_valid: Any | None = None,
    reflection: bool = True,
) -> SampleErrors:
    """Compare N predictions with the truth: joints (N, 21, 3), vertices (N, 778, 3), meters, in one frame.

    Arrays or tensors of the CPU. joints_valid (N, 21) marks annotated joints, vertices_valid (N,) samples with an
    annotated mesh; None = all. Predictions must be finite. Wrists are expected together: a hand whose wrist alone is
    annotated has no error of joints, for it would be 0 whatever was predicted.
    """
    joints, true_joints = np.asarray(joints_m, np.float64), np.asarray(true_joints_m, np.float64)
    vertices, true_vertices = np.asarray(vertices_m, np.float64), np.asarray(true_vertices_m, np.float64)
    seen = np.ones(joints.shape[:2], bool) if joints_valid is None else np.asarray(joints_valid, bool)
    has_mesh = np.ones(len(joints), bool) if vertices_valid is None else np.asarray(vertices_valid, bool)
    placed = seen & seen[:, 1:].any(1, keepdims=True)

    vertices, true_vertices = vertices[has_mesh], true_vertices[has_mesh]
    aligned_vertices = procrustes_align(vertices, true_vertices, reflection=reflection)

    def of_meshes(values: Array) -> Array:
        spread = np.full((len(has_mesh), values.shape[1]), np.nan)
        spread[has_mesh] = values
        return spread

    return SampleErrors(
        joint_m=np.where(placed, distances(joints, true_joints), np.nan),
        joint_pa_m=pa_joint_errors(joints, true_joints, seen, reflection=reflection),
        vertex_m=of_meshes(distances(vertices, true_vertices)),
        vertex_pa_m=of_meshes(distances(aligned_vertices, true_vertices)),
        f_scores=of_meshes(f_scores(vertices, true_vertices, F_THRESHOLDS_M)),
        f_scores_pa=of_meshes(f_scores(aligned_vertices, true_vertices, F_THRESHOLDS_M)),
    )
