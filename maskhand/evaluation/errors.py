"""Errors of predictions: a table per predictor, from which every number of an evaluation is made.

Left hands enter the model mirrored, so predictions and ground truth are compared as right hands: a mirror changes no
distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from maskhand.arrays import Array
from maskhand.batch import HandPrediction
from maskhand.conventions import MANO_16, NUM_JOINTS, OPENPOSE_21
from maskhand.evaluation.mean_pose import MeanPose
from maskhand.evaluation.placed import with_fingertips
from maskhand.evaluation.placed_errors import PCK_NAMES, PlacedErrors
from maskhand.evaluation.result import EvaluationRow
from maskhand.evaluation.truth import Truth
from maskhand.hand.layer import ManoLayer
from maskhand.metrics.accumulate import Means, row_means
from maskhand.metrics.calibration import JointConfidenceQuality
from maskhand.metrics.pck import MIN_CONFIDENCE
from maskhand.metrics.samples import SampleErrors, sample_errors
from maskhand.models.calibration import WITHIN_MM, JointConfidence
from maskhand.models.estimators import Estimator
from maskhand.scoring.predictions import Predictions
from maskhand.shards.reader import ShardSample

_TENSORS = (
    "log_probability",
    "has_joints",
    "has_mesh",
    "token_confidence_of_joints",
    "p_within_10mm",
    "p_by_joint",
    "joint_error_mm",
    "size_px",
    "occluded",
)


@dataclass(frozen=True)
class ErrorTable:
    """One predictor's errors over N samples, with what identifies the samples."""

    errors: SampleErrors
    index: np.ndarray
    keys: list[str]
    sides: list[str]
    log_probability: Tensor
    """(N,) mean log probability of the tokens."""
    failure: list[str]
    """Why a sample counts as failed; empty where it does not."""
    has_joints: Tensor
    """(N,) bool: 3D joints are annotated, not the wrist alone."""
    has_mesh: Tensor
    token_confidence_of_joints: Tensor
    """(N, 16) mean probability of the tokens of each MANO joint; NaN for a predictor without any."""
    p_within_10mm: Tensor
    """(N, 21) see `JointConfidence`; NaN for all but the estimator that counts, where it is calibrated."""
    p_by_joint: Tensor
    """(N, 21) alike."""
    joint_error_mm: Tensor
    """(N, 21) the expected error, alike."""
    size_px: Tensor
    """(N,) longer side of the annotation's box."""
    placed: PlacedErrors
    """Of the hands where their 2D keypoints put them, or, without any, the network's camera."""
    by_model: PlacedErrors
    """Of the hands where the network's own camera puts them."""
    occluded: Tensor
    """(N, 21) 1 where a joint is annotated as hidden, 0 where not; NaN where the dataset does not state it."""

    @classmethod
    def concatenate(cls, parts: list[ErrorTable]) -> ErrorTable:
        return cls(
            errors=SampleErrors.concatenate([p.errors for p in parts]),
            index=np.concatenate([p.index for p in parts]),
            keys=[key for p in parts for key in p.keys],
            sides=[side for p in parts for side in p.sides],
            failure=[reason for p in parts for reason in p.failure],
            placed=PlacedErrors.concatenate([p.placed for p in parts]),
            by_model=PlacedErrors.concatenate([p.by_model for p in parts]),
            **{name: torch.cat([getattr(p, name) for p in parts]) for name in _TENSORS},
        )

    def row(self, name: str, estimator: Estimator | None) -> EvaluationRow:
        """estimator: None for the mean pose."""
        metrics = self.errors.summary() | self._in_image()
        if estimator is not None:
            error, likely = self.errors.per_sample()["pa_mpjpe_mm"], self.log_probability.numpy()
            known = np.isfinite(error) & np.isfinite(likely)
            varied = known.sum() > 2 and np.ptp(likely[known]) > 0
            correlation = float(spearmanr(likely[known], -error[known])[0]) if varied else np.nan
            metrics["log_probability_rank_correlation"] = correlation
            if self.p_within_10mm.isfinite().any():
                known_mm = 1e3 * self.errors.joint_pa_m
                p_within, constant, expected = (
                    x.numpy() for x in (self.p_within_10mm, self.p_by_joint, self.joint_error_mm)
                )
                metrics |= vars(JointConfidenceQuality.of(p_within, constant, expected, known_mm, WITHIN_MM))
        key, passes = (name.replace(" ", "_"), None) if estimator is None else (estimator.key, estimator.passes)
        return EvaluationRow(name, key, passes, metrics, sum(bool(reason) for reason in self.failure))

    def _in_image(self) -> dict[str, float]:
        """What needs the image's camera: absolute error, end-point error, PCK; NaN where there is no truth for it.

        `model_camera_`...: the same of the hands where the network's own camera puts them.
        """
        size, hidden = self.size_px.numpy(), self.occluded.numpy()
        values = self.placed.values(size)
        values |= {f"model_camera_{name}": value for name, value in self.by_model.values(size).items()}
        if not np.isnan(hidden).all():
            for state, chosen in (("visible", hidden == 0), ("occluded", hidden == 1)):
                values |= {f"{name}_{state}": np.where(chosen, values[name], np.nan) for name in PCK_NAMES}
        return {name: Means.of(value).mean for name, value in values.items()}

    def frame(self, name: str) -> pd.DataFrame:
        columns: dict[str, Any] = {
            "predictor": [name] * len(self.keys),
            "index": self.index,
            "key": self.keys,
            "side": self.sides,
            "log_probability": self.log_probability.numpy(),
            "mean_token_confidence": self.token_confidence_of_joints.mean(1).numpy(),
            "mean_p_within_10mm": row_means(self.p_within_10mm.numpy()),
            "mean_joint_error_mm": row_means(self.joint_error_mm.numpy()),
            "failure": self.failure,
            "box_px": self.size_px.numpy(),
            "occluded_share": row_means(self.occluded.numpy()),
            **self.placed.per_sample(),
            **{f"model_camera_{name}": value for name, value in self.by_model.per_sample().items()},
        }
        joints = {f"pa_mm.{name}": 1e3 * self.errors.joint_pa_m[:, j] for j, name in enumerate(OPENPOSE_21)}
        tokens = {
            f"token_confidence.{name}": self.token_confidence_of_joints[:, j].numpy() for j, name in enumerate(MANO_16)
        }
        confidences = {
            f"{what}.{name}": getattr(self, what)[:, j].numpy()
            for what in ("p_within_10mm", "joint_error_mm")
            for j, name in enumerate(OPENPOSE_21)
        }
        return pd.DataFrame(columns | self.errors.per_sample() | joints | confidences | tokens)


@dataclass(frozen=True)
class HandPoints:
    """B right hands in meters, as far as errors need them."""

    vertices_m: Tensor
    joints_m: Tensor
    log_probability: Tensor
    token_confidence_of_joints: Tensor


def constant_predictor(mean: MeanPose, mano: ManoLayer, count: int) -> HandPoints:
    """The mean pose, `count` times."""
    device = mano.weights.device
    rotmats = torch.as_tensor(mean.rotmats, dtype=torch.float32, device=device)[None]
    mesh = mano(rotmats, torch.as_tensor(mean.betas, dtype=torch.float32, device=device)[None])
    nan = torch.full((count,), torch.nan)
    vertices, joints = (x.cpu().expand(count, -1, -1) for x in (mesh.vertices_m, mesh.joints_m))
    return HandPoints(vertices, joints, nan, nan[:, None].expand(count, 16))


def error_table(
    prediction: HandPrediction | HandPoints,
    truth: Truth,
    rows: Sequence[ShardSample],
    fingertips: Sequence[str | None],
    failure: list[str],
    placed: Predictions | None = None,
    by_model: Predictions | None = None,
    confidence: JointConfidence | None = None,
) -> ErrorTable:
    """Errors of B predictions; those with a reason in `failure` are scored as a hand shrunk to a point.

    placed: the same predictions in the camera frame, where the predictor has one; by_model: alike, placed by the
    network's own camera; confidence: of their joints, where that is calibrated.
    """
    usable = torch.tensor([not reason for reason in failure])[:, None, None]
    vertices = prediction.vertices_m.where(usable, 0.0)
    joints = with_fingertips(prediction.joints_m.where(usable, 0.0), vertices, fingertips)
    wrist = joints[:, :1]
    errors = sample_errors(
        joints - wrist, truth.joints_m, vertices - wrist, truth.vertices_m, truth.joints_valid, truth.has_mesh
    )
    token_confidence_of_joints = prediction.token_confidence_of_joints.double().where(usable[:, 0], torch.nan)
    unknown = np.full((len(rows), NUM_JOINTS), np.nan)
    calibrated = {
        name: torch.from_numpy(
            unknown if confidence is None else np.where(usable[:, 0], getattr(confidence, name), np.nan)
        )
        for name in ("p_within_10mm", "p_by_joint", "joint_error_mm")
    }
    return ErrorTable(
        errors=errors,
        index=np.array([row.index for row in rows]),
        keys=[row.sample.key for row in rows],
        sides=[row.sample.side for row in rows],
        log_probability=prediction.log_probability.double().where(usable[:, 0, 0], torch.nan),
        failure=failure,
        has_joints=torch.from_numpy(~np.isnan(errors.joint_m).all(1)),
        has_mesh=truth.has_mesh,
        token_confidence_of_joints=token_confidence_of_joints,
        **calibrated,
        size_px=torch.tensor([np.ptp(row.sample.box_xyxy_px.reshape(2, 2), axis=0).max() for row in rows]).double(),
        placed=PlacedErrors.of(placed, rows),
        by_model=PlacedErrors.of(by_model, rows),
        occluded=torch.from_numpy(np.stack([_occluded(row) for row in rows])),
    )


def _occluded(row: ShardSample) -> Array:
    """(21,) 1 hidden, 0 visible, NaN not annotated or unknown."""
    hidden, confidence = row.sample.joints_2d_occluded, row.sample.joints_2d_conf
    if hidden is None:
        return np.full(21, np.nan)
    seen = np.ones(21, bool) if confidence is None else confidence > MIN_CONFIDENCE
    return np.where(seen, hidden.astype(np.float64), np.nan)
