"""The calibration of a model's joint confidence, fitted on held-out hands; `calibration.json` of a bundle.

The calibrated event: a joint is correct when it lies within 10 mm of the truth after Procrustes alignment of the 21
joints (the column `pa_mm.<joint>` of an evaluation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from maskhand.arrays import Array
from maskhand.config import SamplerConfig
from maskhand.conventions import NUM_JOINTS

CALIBRATION = "calibration.json"
"""Name of the calibration file in a bundle."""
WITHIN_MM = 10.0
"""Maximum error of a correct joint after Procrustes alignment."""

_MIN_SPREAD_MM = 0.1
"""Lower bound of the spread before its logarithm is taken."""

ByJoint = Annotated[tuple[float, ...], Field(min_length=NUM_JOINTS, max_length=NUM_JOINTS)]


@dataclass(frozen=True)
class DrawStatistics:
    """Agreement of sampled hands with B reported ones, after alignment; NaN for hands that are not finite."""

    fraction_within: Array
    """(B, 21) fraction of the sampled hands whose joint is within `WITHIN_MM` of the reported one."""
    spread_mm: Array
    """(B, 21) root mean square distance of the sampled joints from the reported one."""
    draws: int


@dataclass(frozen=True)
class JointConfidence:
    """The calibrated confidence of the joints of B reported hands."""

    p_within_10mm: Array
    """(B, 21) probability that the joint lies within 10 mm of the truth after alignment."""
    joint_error_mm: Array
    """(B, 21) expected distance from the truth after alignment."""
    p_by_joint: Array
    """(B, 21) the base rate of each joint, the same for all hands; the baseline that `p_within_10mm` must beat."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JointMap(_Frozen):
    """A monotone map of features to a number per joint: a linear index, then a piecewise linear table.

    index = offset[joint] + weights . features.
    """

    offset: ByJoint
    """Intercept of each joint."""
    weights: Annotated[tuple[float, ...], Field(min_length=1)]
    """(F,) weights of the features."""
    table: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    """Knots (index, value), ascending in both; linear between them, constant beyond them."""

    def __call__(self, features: Array) -> Array:
        """(B, 21, F) -> (B, 21)."""
        index, value = np.asarray(self.table).T
        return np.interp(np.asarray(self.offset) + features @ self.weights, index, value)


def draw_features(statistics: DrawStatistics) -> Array:
    """(B, 21, 2) smoothed logit of `fraction_within`, and logarithm of the spread in millimeters."""
    hits = statistics.fraction_within * statistics.draws
    logit = np.log((hits + 0.5) / (statistics.draws - hits + 0.5))
    return np.stack([logit, np.log(np.maximum(statistics.spread_mm, _MIN_SPREAD_MM))], axis=-1)


class JointCalibration(_Frozen):
    """The calibration of one reconstruction method: features -> joint confidence.

    The features of a network's hands are statistics of its samples (`draw_features`); those of a fit, with or without
    a network's hand as evidence, are its residuals (`annotate.fit.detected.fit_features`).
    """

    within: JointMap
    """Probability that a joint is within `WITHIN_MM`."""
    error: JointMap
    """Expected error, millimeters."""
    within_by_joint: ByJoint
    """Base rate: fraction of correct joints on the held-out hands."""
    hands: Annotated[int, Field(ge=1)]
    """Number of held-out hands with annotated 3D joints that it was fitted on."""

    def __call__(self, features: Array) -> JointConfidence:
        """features (B, 21, F)."""
        by_joint = np.broadcast_to(self.within_by_joint, features.shape[:2])
        return JointConfidence(self.within(features), self.error(features), by_joint)


class Candidate(_Frozen):
    """A candidate estimator and its error on the held-out hands."""

    name: str
    sampler: SamplerConfig
    pa_mpjpe_mm: float


class Calibration(_Frozen):
    """The calibration of a model, fitted after training on the held-out part of the training sets."""

    format: Literal[2] = 2
    sampler: SamplerConfig
    """The recipe's sampler, for which the calibration is valid."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    draws: Annotated[int, Field(ge=2)]
    """Number of hands sampled to compute the confidence of a reported hand."""
    seed: int
    """Seed of the sampling noise, the same for every hand."""
    hands: dict[str, int]
    """Training set -> number of held-out hands with annotated 3D joints."""
    joints: JointCalibration
    """The joint calibration of the selected estimator."""

    @property
    def estimator(self) -> Candidate:
        """The candidate with the lowest error; the first one if several are equal."""
        return min(self.candidates, key=lambda candidate: candidate.pa_mpjpe_mm)

    def facts(self) -> dict[str, object]:
        """The summary that a report shows."""
        return {
            "estimator": self.estimator.name,
            "held_out_pa_mpjpe_mm": {c.name: round(c.pa_mpjpe_mm, 3) for c in self.candidates},
            "held_out_hands": dict(self.hands),
            "draws": self.draws,
            "seed": self.seed,
        }


def estimator_of(sampler: SamplerConfig, calibration: Calibration | None) -> SamplerConfig:
    """The sampler settings of the reported hand: the calibration's choice if it is valid for `sampler`, else that."""
    return sampler if calibration is None or calibration.sampler != sampler else calibration.estimator.sampler


def joint_calibration(sampler: SamplerConfig, calibration: Calibration | None) -> JointCalibration | None:
    """The calibration of joints for `sampler`; None if the model is not calibrated for it."""
    return None if calibration is None or calibration.sampler != sampler else calibration.joints
