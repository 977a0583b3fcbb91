"""The gate before the name `champion`: when does a registered model take it from the one that has it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from maskhand.metrics.titles import METRICS

REQUIRED_GAIN = 0.30
"""A champion's error must be at least this fraction below that of a predictor that always returns the mean pose."""


GATE_METRICS = ("pa_mpjpe_mm", "pa_mpvpe_mm")
"""The gate looks at the first that the data has ground truth for."""


@dataclass(frozen=True)
class Score:
    """What a model reached, and on what."""

    error_mm: float
    mean_pose_mm: float
    """Error of the mean-pose predictor on the same data."""
    data_digest: str
    """Scores on different data are never compared."""
    metric: str = "pa_mpjpe_mm"
    """One of GATE_METRICS."""

    @classmethod
    def of_metrics(
        cls, model: Mapping[str, float | None], mean_pose: Mapping[str, float | None], data_digest: str
    ) -> Self:
        """The score among all metrics; NaN where there is no such number."""
        known = [name for name in GATE_METRICS if math.isfinite(_number(model.get(name)))]
        metric = next(iter([*known, *GATE_METRICS]))
        return cls(_number(model.get(metric)), _number(mean_pose.get(metric)), data_digest, metric)

    def as_numbers(self) -> dict[str, float]:
        """By the names under which they are kept."""
        return {self.metric: self.error_mm, f"mean_pose_{self.metric}": self.mean_pose_mm}

    def as_tags(self) -> dict[str, str]:
        return {name: repr(value) for name, value in self.as_numbers().items()} | {"data_digest": self.data_digest}

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """The score written by `as_tags`; None when there is none."""
        for metric in GATE_METRICS:
            if {metric, f"mean_pose_{metric}", "data_digest"} <= tags.keys():
                return cls(float(tags[metric]), float(tags[f"mean_pose_{metric}"]), tags["data_digest"], metric)
        return None


def _number(value: float | None) -> float:
    """What is written as null, or not at all, is NaN: the set has no such ground truth."""
    return math.nan if value is None else value


def judge(candidate: Score, champion: Score | None, champion_name: str | None = None) -> tuple[bool, str]:
    """Shall `candidate` become the champion? The answer and a sentence with the reason.

    It must beat the mean pose by 30 %, and the present champion (if any) on the same evaluation data. A champion that
    was measured on other data, or never, stays: measure it on the same data first.
    """
    ours, mean, metric = candidate.error_mm, candidate.mean_pose_mm, METRICS[candidate.metric].title
    if not (ours == ours and mean > 0):
        return False, f"Stays challenger: its {metric} ({ours}) or the mean pose's ({mean}) is not a number."
    gain = 1 - ours / mean
    side = "below" if gain >= 0 else "above"
    facts = f"{metric} {ours:.2f} mm, {100 * abs(gain):.1f} % {side} the mean pose's {mean:.2f} mm"
    if gain < REQUIRED_GAIN:
        return False, f"Stays challenger: {facts}, but {100 * REQUIRED_GAIN:.0f} % below it are required."
    if champion_name is None:
        return True, f"Becomes champion: {facts}, and there was no champion."
    if champion is None or (champion.data_digest, champion.metric) != (candidate.data_digest, candidate.metric):
        known = "never measured" if champion is None else f"measured on other data ({champion.data_digest})"
        return False, (
            f"Stays challenger: {facts}, but the champion ({champion_name}) was {known}, not on "
            f"{candidate.data_digest}; evaluate it there and register it again."
        )
    theirs = champion.error_mm
    if ours < theirs:
        return True, f"Becomes champion: {facts}, better than the former champion's {theirs:.2f} mm ({champion_name})."
    return False, f"Stays challenger: {facts}, not better than the champion's {theirs:.2f} mm ({champion_name})."


NOT_WORSE = 0.02
"""On no benchmark may a new champion be worse by more than this share of the old one's error."""


@dataclass(frozen=True)
class PairedDifference:
    """Challenger against champion on the same samples of one benchmark."""

    benchmark: str
    count: int
    """Samples that both have an error for."""
    champion_mm: float
    challenger_mm: float
    """Mean errors."""
    low_mm: float
    high_mm: float
    """Bootstrap interval of challenger minus champion."""

    @property
    def is_better(self) -> bool:
        """Surely: the whole interval lies below zero."""
        return self.high_mm < 0

    @property
    def may_be_worse(self) -> bool:
        """The interval reaches beyond the margin, or there is none."""
        return not self.high_mm <= NOT_WORSE * self.champion_mm

    def __str__(self) -> str:
        return (
            f"{self.benchmark} {self.challenger_mm - self.champion_mm:+.3f} mm "
            f"[{self.low_mm:+.3f}, {self.high_mm:+.3f}] on {self.count} samples"
        )


def paired_difference(
    benchmark: str, champion_mm: Mapping[str, float], challenger_mm: Mapping[str, float], seed: int = 0
) -> PairedDifference:
    """Errors by sample -> mean difference with its 95 % interval (see `mean_interval`).

    Raises ValueError when the two were not measured on the same samples. Those whose error is NaN in both are left out;
    one that is NaN in only one of them leaves no interval.
    """
    import numpy as np

    from maskhand.metrics.paired import mean_interval

    if champion_mm.keys() != challenger_mm.keys():
        different = len(champion_mm.keys() ^ challenger_mm.keys())
        raise ValueError(f"{benchmark}: {different} samples were measured for one model only; measure both again")
    keys = sorted(champion_mm)
    old, new = (np.array([errors[key] for key in keys], np.float64) for errors in (champion_mm, challenger_mm))
    known = ~(np.isnan(old) & np.isnan(new))
    old, new = old[known], new[known]
    difference = new - old
    low, high = mean_interval(difference, seed)
    champion, challenger = (float(errors.mean()) if len(errors) else float("nan") for errors in (old, new))
    return PairedDifference(benchmark, len(difference), champion, challenger, low, high)


def judge_succession(candidate: Score, pairs: Sequence[PairedDifference], champion_name: str) -> tuple[bool, str]:
    """Shall `candidate` follow the champion, both just measured on the same benchmarks? The answer and why.

    It must be 30 % better than the mean pose (`candidate`, on its home benchmark), surely better than the champion on
    at least one benchmark (95 % interval of the paired difference below zero), and on none may the interval reach
    beyond 2 % of the champion's error.
    """
    fit, why = judge(candidate, None)
    if not fit:
        return False, why
    if not pairs:
        return False, f"Stays challenger: no benchmark was measured for both it and the champion ({champion_name})."
    facts = "; ".join(str(pair) for pair in pairs)
    worse = [pair.benchmark for pair in pairs if pair.may_be_worse]
    if worse:
        return False, (
            f"Stays challenger: on {', '.join(worse)} it may be more than {100 * NOT_WORSE:.0f} % worse than the "
            f"champion ({champion_name}): {facts}."
        )
    better = [pair.benchmark for pair in pairs if pair.is_better]
    if not better:
        return False, f"Stays challenger: not surely better than the champion ({champion_name}) anywhere: {facts}."
    return True, f"Becomes champion: surely better than {champion_name} on {', '.join(better)}, nowhere worse: {facts}."
