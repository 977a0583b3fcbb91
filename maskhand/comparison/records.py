"""What is compared: runs as their parameters, their measured sets hand by hand, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from maskhand.arrays import Array
from maskhand.config import Recipe
from maskhand.conventions import OPENPOSE_21
from maskhand.errors import MaskhandError

Curve = Sequence[tuple[int, float]]
"""(step, value) in the order of steps."""
PER_HAND = (
    "pa_mpjpe_mm", "pa_mpvpe_mm", "pa_f5", "pa_f15", "pa_auc_joints", "mpjpe_mm", "mpvpe_mm", "absolute_mpjpe_mm",
    "epe_px",
)  # fmt: skip
"""The metrics that are compared, all of them known hand by hand."""
BY_HAND = ("key", "index", "side", "box_px", "failure", *(f"pa_mm.{joint}" for joint in OPENPOSE_21))
"""The columns of samples.parquet that every hand has."""


class ComparisonError(MaskhandError, ValueError):
    """Runs that cannot be found or set beside each other; the message says what to name instead."""


@dataclass(frozen=True)
class PlacedJoints:
    """Where the estimator put the joints of N hands of a set."""

    index: Array
    """(N,) int64 position in the shard set."""
    joints_px: Array
    """(N, 21, 2) in the stored image; NaN for a failed hand."""


@dataclass(frozen=True)
class MeasuredSet:
    """One run on one shard set."""

    name: str
    """`freihand_synth/evaluation`."""
    set_uri: str
    """Where its shards were when it was measured."""
    data_digest: str
    count: int
    """Hands."""
    estimator: str
    """Name of the estimator that was measured."""
    metrics: Mapping[str, float]
    """The set's numbers of that estimator, over all of its hands."""
    hands: pd.DataFrame | None
    """A row per hand of that estimator, by key (see `ErrorTable.frame`); None where the rows were not kept."""
    joints: PlacedJoints | None = None
    """None where they were not kept."""


@dataclass(frozen=True)
class ComparedRun:
    """One training or evaluation."""

    label: str
    """Its name in tables; no two runs of a comparison have the same."""
    source: str
    """What it was found as, for people."""
    parameters: Mapping[str, str]
    """Values of its recipe, by dotted key; of the sampler as it was asked in the evaluation."""
    circumstances: Mapping[str, str]
    """What was fixed beside the recipe: code, data, weights, hand model, the evaluation's facts."""
    sets: Mapping[str, MeasuredSet]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Of a training, by metric, such as `train/loss`."""
    recipe: Recipe | None = None
    """None where it is not known in this version's form: then its hands are not drawn."""


@dataclass(frozen=True)
class PairedMetric:
    """One metric of two runs on the hands that both have."""

    metric: str
    count: int
    """Hands of which both know it."""
    reference: float
    """Mean over these hands."""
    other: float
    low: float
    """95 % bootstrap interval of other minus reference; NaN where there are no hands."""
    high: float
    larger_is_better: bool

    @property
    def difference(self) -> float:
        return self.other - self.reference

    @property
    def verdict(self) -> str:
        """`better` or `worse` (of `other`) where the interval leaves zero out, else `undecided`."""
        if not (self.low > 0 or self.high < 0):
            return "undecided"
        return "better" if (self.low > 0) == self.larger_is_better else "worse"


@dataclass(frozen=True)
class ChangedHand:
    """A hand that two runs see differently."""

    key: str
    index: tuple[int, int]
    """Its position in the reference's and in the other run's set."""
    side: str
    reference: float
    """Its error, in the metric of `SetComparison.ranked_by`."""
    other: float
    failure: str
    """Why either run failed on it; "" where neither did."""

    @property
    def change(self) -> float:
        return self.other - self.reference


@dataclass(frozen=True)
class PairOfRuns:
    """A run against the reference on one set."""

    reference: str
    other: str
    """Labels."""
    metrics: tuple[PairedMetric, ...]
    ranked_by: str
    """The metric by which hands changed: the first that both know, joints before meshes before the image."""
    changed: tuple[ChangedHand, ...]
    """Those that changed most, the largest change first."""


@dataclass(frozen=True)
class SetComparison:
    """All runs that were measured on one set."""

    name: str
    runs: tuple[str, ...]
    """Labels, the reference first."""
    shared: int
    """Hands that all of them have; only these are compared."""
    products: Mapping[str, str]
    """Label -> estimator."""
    pairs: tuple[PairOfRuns, ...]
    unpaired: Mapping[str, Mapping[str, float]]
    """Metric -> label -> the set's own number, of metrics that are not kept hand by hand."""
    notes: tuple[str, ...]
    """What is not the same: data, hands, missing rows."""


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, the first one the reference."""

    runs: tuple[ComparedRun, ...]
    parameters: Mapping[str, tuple[str | None, ...]]
    """Those that differ, by key, a value per run; None where a run has no such key."""
    circumstances: Mapping[str, tuple[str | None, ...]]
    """Those that differ among the runs that they are known of."""
    same_parameters: int
    """How many do not differ."""
    sets: tuple[SetComparison, ...]
    notes: tuple[str, ...]
