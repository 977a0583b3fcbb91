"""The gate before the name `champion`: which model is the one that people get when they ask for none in particular?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

REQUIRED_GAIN = 0.30
"""A champion's PA-MPJPE must be at least this share below that of a predictor that always says the mean pose."""


@dataclass(frozen=True)
class Score:
    """What a model reached, and on what."""

    pa_mpjpe_mm: float
    mean_pose_pa_mpjpe_mm: float
    """Of the mean-pose predictor on the same data."""
    evaluation_digest: str
    """Of the data; scores on different data are never compared."""

    def as_tags(self) -> dict[str, str]:
        return {
            "pa_mpjpe_mm": repr(self.pa_mpjpe_mm),
            "mean_pose_pa_mpjpe_mm": repr(self.mean_pose_pa_mpjpe_mm),
            "evaluation_digest": self.evaluation_digest,
        }

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """The score written by `as_tags`; None when there is none."""
        if not {"pa_mpjpe_mm", "mean_pose_pa_mpjpe_mm", "evaluation_digest"} <= tags.keys():
            return None
        return cls(float(tags["pa_mpjpe_mm"]), float(tags["mean_pose_pa_mpjpe_mm"]), tags["evaluation_digest"])


def judge(candidate: Score, champion: Score | None, champion_name: str | None = None) -> tuple[bool, str]:
    """Shall `candidate` become the champion? The answer and a sentence that says why.

    It must beat the mean pose by 30 %, and the present champion (if any) on the same evaluation data. A champion that
    was measured on other data, or never, stays: measure it on the same data first.
    """
    ours, mean = candidate.pa_mpjpe_mm, candidate.mean_pose_pa_mpjpe_mm
    if not (ours == ours and mean > 0):
        return False, f"Stays challenger: its PA-MPJPE ({ours}) or the mean pose's ({mean}) is not a number."
    gain = 1 - ours / mean
    facts = f"PA-MPJPE {ours:.2f} mm, {100 * gain:.1f} % below the mean pose's {mean:.2f} mm"
    if gain < REQUIRED_GAIN:
        return False, f"Stays challenger: {facts}, but {100 * REQUIRED_GAIN:.0f} % are required."
    if champion_name is None:
        return True, f"Becomes champion: {facts}, and there was no champion."
    if champion is None or champion.evaluation_digest != candidate.evaluation_digest:
        known = "never measured" if champion is None else f"measured on other data ({champion.evaluation_digest})"
        return False, (
            f"Stays challenger: {facts}, but the champion ({champion_name}) was {known}, not on "
            f"{candidate.evaluation_digest}; evaluate it there and register it again."
        )
    theirs = champion.pa_mpjpe_mm
    if ours < theirs:
        return True, f"Becomes champion: {facts}, better than the former champion's {theirs:.2f} mm ({champion_name})."
    return False, f"Stays challenger: {facts}, not better than the champion's {theirs:.2f} mm ({champion_name})."
