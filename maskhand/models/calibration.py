"""What a model's doubts mean, measured on hands that it was not trained on; `calibration.json` of a bundle.

The event is one thing everywhere: a joint counts as right when it lies within 10 mm of the truth after the reported
hand's 21 joints were laid over the true ones by the best similarity (the column `pa_mm.<joint>` of an evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from maskhand.config import SamplerConfig
from maskhand.conventions import NUM_JOINTS

Array = np.ndarray

WITHIN_MM = 10.0
"""A joint is right up to this error after Procrustes alignment."""
MODEL = "model"
"""The method whose hands are the network's own."""

_FINEST_MM = 0.1
"""A smaller spread than this says no more than this one."""

ByJoint = Annotated[tuple[float, ...], Field(min_length=NUM_JOINTS, max_length=NUM_JOINTS)]


@dataclass(frozen=True)
class Evidence:
    """How drawn hands lie about B reported ones; NaN for a reported hand that is not finite."""

    share: Array
    """(B, 21) share of the drawn hands whose joint is within `WITHIN_MM` of the reported one, each laid over it."""
    spread_mm: Array
    """(B, 21) root mean square distance of the drawn joints from the reported one, alike."""
    draws: int


@dataclass(frozen=True)
class JointConfidence:
    """What is said of the joints of B reported hands."""

    p_within_10mm: Array
    """(B, 21) probability that the joint lies within 10 mm of the truth after alignment."""
    joint_error_mm: Array
    """(B, 21) expected distance from the truth after alignment."""
    p_by_joint: Array
    """(B, 21) what a constant per joint would say in the place of `p_within_10mm`: only what is above it is of this
    hand."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JointMap(_Frozen):
    """Joint and evidence -> a number that grows with an index: offset + weights . features."""

    offset: ByJoint
    """What a joint is worth before this hand is looked at."""
    weights: Annotated[tuple[float, ...], Field(min_length=1)]
    """Of the features of the evidence, as many as the method has."""
    table: Annotated[tuple[tuple[float, float], ...], Field(min_length=1)]
    """(index, number), ascending in both; between them straight lines, beyond them constants."""

    def __call__(self, features: Array) -> Array:
        """(B, 21, F) -> (B, 21)."""
        places, numbers = np.asarray(self.table).T
        return np.interp(np.asarray(self.offset) + features @ self.weights, places, numbers)


def draw_features(evidence: Evidence) -> Array:
    """(B, 21, 2) logit of the share, half a draw away from 0 and 1, and logarithm of the spread in millimeters."""
    hits = evidence.share * evidence.draws
    logit = np.log((hits + 0.5) / (evidence.draws - hits + 0.5))
    return np.stack([logit, np.log(np.maximum(evidence.spread_mm, _FINEST_MM))], axis=-1)


class MethodCalibration(_Frozen):
    """For the hands of one method: from the evidence beside them to what is said of the joints.

    The evidence of a network's hands, and of hands refined by them, are its draws (`draw_features`); that of a fit is
    how well it fits (`annotate.fit.detected.fit_features`).
    """

    within: JointMap
    error: JointMap
    """Millimetres."""
    within_by_joint: ByJoint
    """Share of right joints on the held-out hands: what a constant per joint says, whatever the hand."""
    hands: Annotated[int, Field(ge=1)]
    """Held-out hands with annotated 3D joints that it was fitted on."""

    def __call__(self, features: Array) -> JointConfidence:
        """features (B, 21, F)."""
        by_joint = np.broadcast_to(self.within_by_joint, features.shape[:2])
        return JointConfidence(self.within(features), self.error(features), by_joint)


class Candidate(_Frozen):
    """One way of making a hand from the distribution, and how well it did on the held-out hands."""

    name: str
    sampler: SamplerConfig
    pa_mpjpe_mm: float


class Calibration(_Frozen):
    """Made once after a training, on the share of the training sets that was left out of it."""

    format: Literal[1] = 1
    asked: SamplerConfig
    """The recipe's sampler that the candidates were made of. Asked otherwise, the model is as its recipe says."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    draws: Annotated[int, Field(ge=2)]
    """Hands that are drawn beside a reported one."""
    seed: int
    """Of the noise by which they are drawn, the same for every hand."""
    hands: dict[str, int]
    """Training set -> held-out hands with annotated 3D joints."""
    methods: dict[str, MethodCalibration]
    """By method of reporting hands; `MODEL` is the best candidate."""

    @model_validator(mode="after")
    def _has_the_model(self) -> Self:
        if MODEL not in self.methods:
            raise ValueError(f"methods are {sorted(self.methods)}; {MODEL!r} must be among them")
        return self

    @property
    def estimator(self) -> Candidate:
        """The candidate with the least error; the earlier one where two are equal."""
        return min(self.candidates, key=lambda candidate: candidate.pa_mpjpe_mm)

    def facts(self) -> dict[str, object]:
        """What a report says of it."""
        return {
            "estimator": self.estimator.name,
            "held_out_pa_mpjpe_mm": {c.name: round(c.pa_mpjpe_mm, 3) for c in self.candidates},
            "held_out_hands": dict(self.hands),
            "draws": self.draws,
            "seed": self.seed,
        }


def estimator_of(asked: SamplerConfig, calibration: Calibration | None) -> SamplerConfig:
    """How a model that is asked by the sampler `asked` makes the hand that it reports.

    The candidate that its calibration chose; the sampler itself where there is no calibration, or where it was made
    for another one.
    """
    return asked if calibration is None or calibration.asked != asked else calibration.estimator.sampler


def calibrated(asked: SamplerConfig, calibration: Calibration | None) -> Mapping[str, MethodCalibration]:
    """By method, what was measured of a model that is asked by the sampler `asked`; nothing where nothing was."""
    return {} if calibration is None or calibration.asked != asked else calibration.methods
