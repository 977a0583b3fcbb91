"""What an evaluation found: a table for people, numbers for machines, a row per sample for closer looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from maskhand.evaluation.summary import RowSummary, SetSummary
from maskhand.metrics.samples import SampleErrors
from maskhand.metrics.titles import METRICS
from maskhand.scoring.predictions import Predictions

_MAIN_METRICS = (
    "pa_mpjpe_mm", "pa_mpvpe_mm", "pa_f5", "pa_f15", "pa_auc_joints", "pa_auc_vertices", "mpjpe_mm", "mpvpe_mm",
)  # fmt: skip
MAIN_COLUMNS: Mapping[str, str] = {name: METRICS[name].column for name in _MAIN_METRICS} | {"pa_auc_joints": "AUC_J"}
"""The columns of the table, as hand papers print them: F and AUC after alignment, MPJPE relative to the wrist. The AUC
of the joints stands beside that of the vertices."""

MEAN_POSE = "mean pose"


@dataclass(frozen=True)
class EvaluationRow:
    """One predictor on one set."""

    name: str
    """`drawn codes, T=5 (4 passes)`, `mean pose`."""
    key: str
    """The same for machines: `drawn_codes_T5`, `mean_pose`."""
    passes: int | None
    """Runs of the transformer; None for the mean pose."""
    metrics: Mapping[str, float]
    """See `SampleErrors.summary`; for models also `log_probability_rank_correlation`, Spearman's between the mean log
    probability of the tokens and -PA-MPJPE, and for the estimator that counts what its calibrated confidence is worth,
    see `metrics.calibration.JointConfidenceQuality`."""
    failed: int
    """Predictions that were not finite numbers; they are scored as a hand shrunk to a point."""


@dataclass(frozen=True)
class EvaluationResult:
    """One model on one set."""

    set_uri: str
    data_digest: str
    """Digest of the set's images."""
    model_digest: str
    count: int
    """Samples, each evaluated exactly once."""
    with_joints: int
    """Samples with annotated 3D joints, not the wrist alone."""
    with_mesh: int
    """Samples with an annotated mesh, as vertices or as MANO parameters."""
    rows: tuple[EvaluationRow, ...]
    per_sample: pd.DataFrame
    """One row per sample and predictor: predictor, index, key, side, log_probability, confidences, errors in mm."""
    errors: Mapping[str, SampleErrors]
    """By predictor, point by point."""
    predictions: Predictions
    """Of the estimator that counts."""
    estimator: str
    """Name of the estimator that counts: the model's own, or the last one that was asked for."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Box source, detector, sampler and whatever else was fixed; failures and rejects by reason."""

    @property
    def set_name(self) -> str:
        """`freihand_synth/evaluation`: the set without where it is stored."""
        return "/".join(self.set_uri.rstrip("/").split("/")[-2:])

    @property
    def baseline(self) -> EvaluationRow | None:
        return next((row for row in self.rows if row.name == MEAN_POSE), None)

    @property
    def estimator_row(self) -> EvaluationRow:
        """The row of `estimator`."""
        return self.row(self.estimator)

    def row(self, name: str) -> EvaluationRow:
        """The row of this name; StopIteration where there is none."""
        return next(row for row in self.rows if row.name == name)

    def gain_over_baseline(self, metric: str = "pa_mpjpe_mm") -> float | None:
        """How much smaller the model's error is than the mean pose's, as a fraction of it.

        None without a baseline, or where the set has no ground truth for the metric or the baseline no error.
        """
        if self.baseline is None or not self.baseline.metrics[metric]:
            return None
        gain = 1 - self.estimator_row.metrics[metric] / self.baseline.metrics[metric]
        return gain if math.isfinite(gain) else None

    def gain_sentences(self) -> list[str]:
        """The gain over the mean pose for people; nothing where it is unknown."""
        gain = self.gain_over_baseline()
        if gain is None:
            return []
        side = "below" if gain >= 0 else "above"
        return [f"PA-MPJPE of {self.estimator} is {100 * abs(gain):.1f} % {side} the mean pose's."]

    def estimator_sentences(self) -> list[str]:
        """Which row is what the model itself uses, and why."""
        ranked: Mapping[str, float] = (self.facts.get("calibration") or {}).get("held_out_pa_mpjpe_mm", {})
        if self.estimator not in ranked:
            return [f"The model itself uses {self.estimator}, as its recipe says."]
        by_error = ", ".join(f"{name} {mm:.2f}" for name, mm in ranked.items())
        why = f"the best on held-out training hands (PA-MPJPE mm: {by_error})"
        return [f"The model itself uses {self.estimator}: {why}."]

    def confidence_sentences(self) -> list[str]:
        """What its confidence in joints is worth; nothing where it has none, or there was nothing to compare with."""
        found = self.estimator_row.metrics
        if not found.get("confidence_auroc", math.nan) > 0:
            return []
        return [
            f"Probability of an error up to 10 mm: expected calibration error {found['confidence_ece']:.3f}, AUROC "
            f"{found['confidence_auroc']:.3f} (a constant per joint {found['confidence_auroc_by_joint']:.3f}).",
            f"Expected against true error: Spearman {found['confidence_error_spearman']:.2f} over joints, "
            f"{found['confidence_hand_spearman']:.2f} over hands.",
        ]

    def to_markdown(self) -> str:
        """The table, with what one must know to read it."""
        lines = [
            "| predictor | " + " | ".join(MAIN_COLUMNS.values()) + " |",
            "|---|" + "---:|" * len(MAIN_COLUMNS),
            *("| " + " | ".join([row.name, *self.cells(row)]) + " |" for row in self.rows),
            "",
            f"{self.count} samples of {self.set_name} (data {self.data_digest}, model {self.model_digest}); "
            f"{self.with_joints} with joints, {self.with_mesh} with a mesh.",
            "PA, F and AUC: after Procrustes alignment (FreiHAND's evaluator). MPJPE, MPVPE: relative to the wrist.",
            *self.estimator_sentences(),
        ]
        lines += [*self.gain_sentences(), *self.confidence_sentences()]
        failed = {row.name: row.failed for row in self.rows if row.failed}
        if failed:
            lines.append("Failed predictions: " + ", ".join(f"{name} {count}" for name, count in failed.items()) + ".")
        return "\n".join(lines) + "\n"

    def cells(self, row: EvaluationRow) -> list[str]:
        """The numbers of a table row, as text; a dash where the set has no such ground truth."""
        return [METRICS[name].cell(row.metrics[name]) for name in MAIN_COLUMNS]

    def summary(self) -> SetSummary:
        """Every number; NaN becomes None."""
        rows = [
            RowSummary(
                name=row.name,
                key=row.key,
                passes=row.passes,
                failed=row.failed,
                metrics={name: None if value != value else float(value) for name, value in row.metrics.items()},
            )
            for row in self.rows
        ]
        return SetSummary(
            set=self.set_uri,
            data_digest=self.data_digest,
            model_digest=self.model_digest,
            count=self.count,
            with_joints=self.with_joints,
            with_mesh=self.with_mesh,
            product=self.estimator,
            gain_over_mean_pose=self.gain_over_baseline(),
            facts=dict(self.facts),
            rows=tuple(rows),
        )
