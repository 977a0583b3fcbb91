"""What the page says about one set: curves, groups and bars, made of the errors that the evaluation kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from maskhand.conventions import OPENPOSE_21
from maskhand.evaluation.page import charts
from maskhand.evaluation.result import MEAN_POSE, EvaluationResult
from maskhand.metrics.calibration import auroc_large_errors, reliability, sparsification
from maskhand.models.calibration import WITHIN_MM

_CURVE_MM = np.linspace(0.0, 50.0, 101)


@dataclass(frozen=True)
class Figure:
    title: str
    svg: str
    note: str
    tall: bool = False
    """Twice as high as the others."""


@dataclass(frozen=True)
class Group:
    """Hands that have something in common."""

    kind: str
    name: str
    count: int
    pa_mpjpe_mm: float
    pa_mpvpe_mm: float


def figures(result: EvaluationResult) -> list[Figure]:
    """The charts of a set; those without data are left out."""
    table = _of(result, result.estimator)
    if table.pa_mpjpe_mm.isna().all():
        return [_pixels(table)] if table.epe_px.notna().any() else []
    found = [_pck(result), _errors(result), _joints(result)]
    return found + _confidence(result, table)


def groups(result: EvaluationResult) -> list[Group]:
    """Errors by side, size in the image, occlusion and confidence, as far as these are known and differ."""
    table = _of(result, result.estimator)
    kinds: dict[str, pd.Series] = {
        "side": table.side,
        "size in the image": thirds(table.box_px, "{:.0f} to {:.0f} px"),
        "expected error": thirds(table.mean_joint_error_mm, "{:.1f} to {:.1f} mm"),
        "hidden joints": pd.cut(
            table.occluded_share, [-0.01, 0.0, 0.25, 0.5, 1.0], labels=["none", "up to 25 %", "25 to 50 %", "over 50 %"]
        ),
    }
    return [
        Group(kind, str(name), len(rows), rows.pa_mpjpe_mm.mean(), rows.pa_mpvpe_mm.mean())
        for kind, names in kinds.items()
        if names.nunique() > 1
        for name, rows in table.groupby(names, observed=True)
    ]


def _of(result: EvaluationResult, name: str) -> pd.DataFrame:
    return result.per_sample[result.per_sample.predictor == name]


def _predictors(result: EvaluationResult) -> Mapping[str, int]:
    """Name -> color: the model's own estimator, and the mean pose."""
    return {result.estimator: 0} | ({MEAN_POSE: 1} if result.baseline else {})


def _pck(result: EvaluationResult) -> Figure:
    series = []
    for name, style in _predictors(result).items():
        distances = 1e3 * result.errors[name].joint_pa_m
        known = np.sort(distances[np.isfinite(distances)])
        fraction = np.searchsorted(known, _CURVE_MM, side="right") / max(len(known), 1)
        series.append(charts.Series(name, _CURVE_MM, fraction, style, dashed=style == 1))
    svg = charts.lines(series, "error after Procrustes, mm", "fraction of joints", 1.0)
    return Figure("3D PCK", svg, "Share of joints within a distance of the truth.")


def _errors(result: EvaluationResult) -> Figure:
    values = [(name, _of(result, name).pa_mpjpe_mm.to_numpy(), k) for name, k in _predictors(result).items()]
    return Figure(
        "Errors of single hands", charts.histogram(values, "PA-MPJPE, mm"), "The last bin holds all larger ones."
    )


def _pixels(table: pd.DataFrame) -> Figure:
    values = [("model", 100 * (table.epe_px / table.box_px).to_numpy(), 0)]
    return Figure("Errors in the image", charts.histogram(values, "mean joint error, % of the box"), "")


def _joints(result: EvaluationResult) -> Figure:
    bars = []
    for name, style in _predictors(result).items():
        table = _of(result, name)
        bars.append((name, np.array([table[f"pa_mm.{joint}"].mean() for joint in OPENPOSE_21]), style))
    names = [joint.replace("_", " ") for joint in OPENPOSE_21]
    return Figure("Error by joint", charts.bars(names, bars, "mean error after Procrustes, mm"), "", tall=True)


def _confidence(result: EvaluationResult, table: pd.DataFrame) -> list[Figure]:
    p_within, error = (
        np.stack([table[f"{what}.{joint}"].to_numpy() for joint in OPENPOSE_21], axis=1)
        for what in ("p_within_10mm", "pa_mm")
    )
    known = np.isfinite(p_within) & np.isfinite(error)
    if not known.any():
        return []
    bins = reliability(np.clip(p_within[known], 0, 1), error[known] <= WITHIN_MM)
    ideal = charts.Series("ideal", np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1, dashed=True)
    measured = charts.Series("joints", bins.confidence, bins.correct, 0)
    calibration = Figure(
        "Reliability of confidence",
        charts.lines(
            [ideal, measured],
            f"predicted probability of an error up to {WITHIN_MM:g} mm",
            f"fraction of joints within {WITHIN_MM:g} mm",
            1.0,
            dots=True,
        ),
        " ".join(result.confidence_sentences()),
    )
    whole = table[table.pa_mpjpe_mm.notna() & table.mean_joint_error_mm.notna()]
    if len(whole) < 3:
        return [calibration]
    confidence, errors = -whole.mean_joint_error_mm.to_numpy(), whole.pa_mpjpe_mm.to_numpy()
    curve = sparsification(confidence, errors)
    series = [
        charts.Series("largest expected error first", curve.left_out, curve.by_confidence, 0),
        charts.Series("worst first (ideal)", curve.left_out, curve.by_error, 1, dashed=True),
    ]
    limit = float(np.quantile(errors, 0.75))
    note = f"Excess over the ideal {curve.excess:.2f} mm."
    if (errors > limit).any():
        note += f" AUROC for errors above {limit:.1f} mm: {auroc_large_errors(confidence, errors, limit):.2f}."
    svg = charts.lines(series, "fraction of hands left out", "PA-MPJPE of the rest, mm")
    return [calibration, Figure("Does the expected error sort the errors?", svg, note)]


def thirds(values: pd.Series, text: str) -> pd.Series:
    """Names of three ranges with equally many hands; nothing where the ranges would read the same."""
    unknown = pd.Series(np.nan, index=values.index)
    if values.nunique() < 3:
        return unknown
    ranges = pd.qcut(values, 3, duplicates="drop")
    low, high = values.min(), values.max()
    names = {r: text.format(max(r.left, low), min(r.right, high)) for r in ranges.cat.categories}
    return ranges.cat.rename_categories(names) if len(set(names.values())) == len(names) else unknown
