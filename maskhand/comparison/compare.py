"""The comparison itself: differing parameters, and errors of the same hands paired one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from maskhand.arrays import Array
from maskhand.comparison.records import (
    BY_HAND,
    PER_HAND,
    ChangedHand,
    ComparedRun,
    Comparison,
    ComparisonError,
    MeasuredSet,
    PairedMetric,
    PairOfRuns,
    SetComparison,
)
from maskhand.conventions import OPENPOSE_21
from maskhand.metrics.accumulate import AUC_LIMIT_M, AUC_STEPS, row_means
from maskhand.metrics.paired import mean_interval
from maskhand.metrics.titles import METRICS

_RANKED_BY = ("pa_mpjpe_mm", "pa_mpvpe_mm", "epe_px")
_BOX_PX = 0.01
"""The same annotated box: samples.parquet of two evaluations of the same shards agree to the last bit."""


def compare(runs: Sequence[ComparedRun], changed: int = 8) -> Comparison:
    """Set runs beside the first of them; of each pair the `changed` hands whose error changed most.

    Raises ComparisonError for fewer than two runs.
    """
    if len(runs) < 2:
        raise ComparisonError("one run cannot be compared: name two or more")
    names = dict.fromkeys(name for run in runs for name in run.sets)
    sets, notes = [], []
    for run in runs:
        if not run.sets:
            notes.append(f"{run.label} was never measured: its parameters and curves alone are compared")
    for name in names:
        having = [run for run in runs if name in run.sets]
        lacking = [run.label for run in runs if name not in run.sets and run.sets]
        if lacking:
            notes.append(f"{name}: not measured for {', '.join(lacking)}")
        if len(having) > 1:
            sets.append(_compare_set(name, having, changed))
    if not sets and all(run.sets for run in runs):
        notes.append("no set was measured for two of the runs: nothing of their results can be compared")
    notes += [f"{run.label}: its recipe is not known" for run in runs if not run.parameters]
    parameters = _differing_parameters(runs)
    return Comparison(
        runs=tuple(runs),
        parameters=parameters,
        circumstances=_differing_where_known([run.circumstances for run in runs]),
        same_parameters=len({key for run in runs for key in run.parameters} - parameters.keys()),
        sets=tuple(sets),
        notes=tuple(notes),
    )


def differing(values: Sequence[Mapping[str, str]]) -> dict[str, tuple[str | None, ...]]:
    """The keys whose values are not all the same, sorted; None where there is no such key."""
    rows = {key: tuple(one.get(key) for one in values) for key in sorted({key for one in values for key in one})}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _differing_parameters(runs: Sequence[ComparedRun]) -> dict[str, tuple[str | None, ...]]:
    """Those of the recipes that are known; a run without one has no part in what differs."""
    known = differing([run.parameters for run in runs if run.parameters])
    return {key: tuple(run.parameters.get(key) for run in runs) for key in known}


def _differing_where_known(values: Sequence[Mapping[str, str]]) -> dict[str, tuple[str | None, ...]]:
    """The same, of what is merely not recorded for some: a training has no estimator, a report no commit."""
    return {key: row for key, row in differing(values).items() if len(set(row) - {None}) > 1}


def hand_auc(errors_mm: Array) -> Array:
    """(N, 21) joint errors after alignment, NaN where not annotated -> (N,) each hand's area under its PCK curve.

    Its mean over hands is the set's `pa_auc_joints` where all joints are annotated: a joint counts with the part of
    the thresholds that it is within.
    """
    bins = np.searchsorted(np.linspace(0.0, AUC_LIMIT_M, AUC_STEPS), errors_mm / 1e3, side="left")
    area = np.where(bins == 0, 1.0, np.clip((AUC_STEPS - bins - 0.5) / (AUC_STEPS - 1), 0.0, 1.0))
    return row_means(np.where(np.isnan(errors_mm), np.nan, area))


def _compare_set(name: str, runs: Sequence[ComparedRun], changed: int) -> SetComparison:
    measured = {run.label: run.sets[name] for run in runs}
    notes = _about_data(measured)
    tables = {label: _by_key(one.hands) for label, one in measured.items() if one.hands is not None}
    if lacking := [label for label in measured if label not in tables]:
        notes.append(f"no rows per hand were kept of {', '.join(lacking)}: of these the set's numbers alone are shown")
    shared: list[str] = []
    if len(tables) > 1:
        shared, told = _shared(tables)
        notes += told
    aligned = {label: table.loc[shared] for label, table in tables.items()} if shared else {}
    labels = list(aligned)
    pairs = [_pair(labels[0], other, aligned[labels[0]], aligned[other], changed) for other in labels[1:]]
    paired = {one.metric for pair in pairs for one in pair.metrics}
    unpaired = {
        metric: {label: one.metrics[metric] for label, one in measured.items() if metric in one.metrics}
        for metric in dict.fromkeys(metric for one in measured.values() for metric in one.metrics)
        if metric not in paired
    }
    return SetComparison(
        name=name,
        runs=tuple(measured),
        shared=len(shared),
        products={label: one.estimator for label, one in measured.items()},
        pairs=tuple(pairs),
        unpaired=unpaired,
        notes=tuple(notes),
    )


def _about_data(measured: Mapping[str, MeasuredSet]) -> list[str]:
    digests = {label: one.data_digest for label, one in measured.items()}
    if len(set(digests.values())) == 1:
        return []
    listed = ", ".join(f"{label} on {digest}" for label, digest in digests.items())
    return [f"measured on different data ({listed}): hands of the same key, side and box are taken for the same"]


def _by_key(hands: pd.DataFrame) -> pd.DataFrame:
    """The metrics of each hand, with what it is known by."""
    joints = [f"pa_mm.{joint}" for joint in OPENPOSE_21]
    known = hands[[*(name for name in BY_HAND if name not in joints), *(m for m in PER_HAND if m in hands)]]
    return known.assign(pa_auc_joints=hand_auc(hands[joints].to_numpy(np.float64))).set_index("key")


def _shared(tables: Mapping[str, pd.DataFrame]) -> tuple[list[str], list[str]]:
    """(keys of the hands that all have, sorted; sentences about those that not all have)."""
    common = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    first, *rest = (table.loc[common] for table in tables.values())
    same = np.ones(len(common), bool)
    for table in rest:
        same &= (first.side == table.side).to_numpy() & (np.abs(first.box_px - table.box_px) < _BOX_PX).to_numpy()
    notes = []
    if alone := {label: len(table) - len(common) for label, table in tables.items() if len(table) > len(common)}:
        listed = ", ".join(f"{label} {count}" for label, count in alone.items())
        notes.append(f"hands that not all runs have are left out: {listed}")
    if not same.all():
        notes.append(f"{int((~same).sum())} hands of the same key have another side or box: left out")
    kept = [key for key, one in zip(common, same, strict=True) if one]
    if not kept:
        notes.append("the runs have no hand in common: the sets' numbers alone are shown")
    return kept, notes


def _pair(reference: str, other: str, before: pd.DataFrame, after: pd.DataFrame, changed: int) -> PairOfRuns:
    metrics = [_paired_metric(metric, before, after) for metric in PER_HAND if metric in before and metric in after]
    known = [one for one in metrics if one.count]
    ranked_by = next((m for m in _RANKED_BY if m in {one.metric for one in known}), "")
    return PairOfRuns(reference, other, tuple(known), ranked_by, _most_changed(before, after, ranked_by, changed))


def _paired_metric(metric: str, before: pd.DataFrame, after: pd.DataFrame) -> PairedMetric:
    old, new = (table[metric].to_numpy(np.float64) for table in (before, after))
    both = np.isfinite(old) & np.isfinite(new)
    old, new = old[both], new[both]
    low, high = mean_interval(new - old)
    reference, other = (float(values.mean()) if len(values) else float("nan") for values in (old, new))
    return PairedMetric(metric, len(old), reference, other, low, high, METRICS[metric].larger_is_better)


def _most_changed(before: pd.DataFrame, after: pd.DataFrame, metric: str, most: int) -> tuple[ChangedHand, ...]:
    if not metric:
        return ()
    change = (after[metric] - before[metric]).abs()
    change = change[np.isfinite(change) & (change > 0)]
    order = np.lexsort((change.index.to_numpy(str), -change.to_numpy()))[:most]
    hands = []
    for key in change.index[order]:
        old, new = before.loc[key], after.loc[key]
        hands.append(
            ChangedHand(
                key=str(key),
                index=(int(old["index"]), int(new["index"])),
                side=str(old["side"]),
                reference=float(old[metric]),
                other=float(new[metric]),
                failure=str(old["failure"] or new["failure"]),
            )
        )
    return tuple(hands)
