"""Scheduled re-evaluation: champion and challengers on every benchmark here; drift since last time; the succession."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from maskhand import storage
from maskhand.device import accelerator
from maskhand.evaluation.report import write_report
from maskhand.evaluation.result import EvaluationRow
from maskhand.kept_json import KeptFileError, read_kept
from maskhand.metrics.titles import METRICS
from maskhand.models.bundle import ModelBundle
from maskhand.progress import Progress
from maskhand.promotion import Score, judge, judge_succession, paired_difference
from maskhand.provenance import code_digest
from maskhand.scoring.benchmarks import benchmark_sets
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import find_manifest
from maskhand.steps.evaluate_set import evaluate_set, training_mean_pose
from maskhand.steps.kept_results import hands_of
from maskhand.steps.models import exported_recipe, model_folder
from maskhand.steps.names import BUNDLE_FILE, PRODUCT, flow_tags
from maskhand.steps.receipt import Receipt, file_digest
from maskhand.tracking import Lineage, ModelVersion, Tracker
from maskhand.workspace import Workspace

KIND = "re-evaluation"
"""Kind of the tracked runs: one per model version and time."""
DRIFT = 0.005
"""A number of the same model that moves by more than this fraction since the last time is flagged."""
HEADLINES = {name: METRICS[name].column for name in ("pa_mpjpe_mm", "pa_mpvpe_mm")} | {"pck_005": "PCK@.05"}
"""Titles of the numbers that are shown, and watched for drift."""


@dataclass(frozen=True)
class VersionResult:
    """One model version on one benchmark: `result.json` of a re-evaluation."""

    benchmark: str
    set_name: str
    data_digest: str
    metrics: Mapping[str, float]
    mean_pose: Mapping[str, float]
    """Metrics of the mean-pose predictor; empty where there is none."""
    samples_uri: str | None
    """samples.parquet; None where the benchmark has neither 3D joints nor meshes."""
    predictor: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Name -> URI of the files of an evaluation's set (`write_report`)."""

    @classmethod
    def of(cls, receipt: Receipt) -> VersionResult:
        remedy = "delete it and measure the version again"
        values = read_kept(receipt.uri, remedy, benchmark=str, set_name=str, data_digest=str, metrics=dict,
                           mean_pose=dict, predictor=str)  # fmt: skip
        try:
            return cls(**values)
        except TypeError as error:
            raise KeptFileError(f"{receipt.uri}: {error}; it is of another version: {remedy}") from None

    @property
    def score(self) -> Score:
        return Score.of_metrics(self.metrics, self.mean_pose, self.data_digest)

    def errors_mm(self) -> dict[str, float]:
        """Sample -> PA-MPJPE, or PA-MPVPE where the set has no joints."""
        assert self.samples_uri is not None, "read only where there are samples"
        metric = self.score.metric
        table = hands_of(self.samples_uri, self.predictor, "index", "key", metric)
        return dict(zip(table["index"].astype(str) + " " + table["key"], table[metric].astype(float), strict=True))


def benchmarks(workspace: Workspace) -> dict[str, str]:
    """Benchmark -> shard set, of those of the cards whose shards exist; open data first."""
    known = {name: one.shard_set for name, one in benchmark_sets().items()}
    return {name: s for name, s in known.items() if find_manifest(workspace.shard_set(s), IMAGES) is not None}


def contenders(workspace: Workspace, newest: int) -> tuple[str | None, list[str]]:
    """(URI of the champion, if any; URIs of the newest versions registered after it)."""
    champion, later = Tracker.of(workspace).contenders(newest)
    return (champion.uri if champion else None), [version.uri for version in later]


def evaluate_version(workspace: Workspace, model: str, benchmark: str, set_name: str, progress: Progress) -> Receipt:
    """Evaluate a registered version on a benchmark; the receipt names `result.json`, beside the folder `evaluation`."""
    folder = model_folder(workspace, model)
    bundle = ModelBundle.load(folder, device=accelerator())
    digest = file_digest(storage.join(folder, BUNDLE_FILE))
    place = storage.join(str(workspace.reports), KIND, digest, benchmark)
    baseline = training_mean_pose(workspace, bundle.recipe)
    samplers = [bundle.estimator]
    result = evaluate_set(workspace, bundle, set_name, progress, baseline=baseline, samplers=samplers)
    files = write_report(result, storage.join(place, "evaluation"))
    facts = {
        "benchmark": benchmark,
        "set_name": set_name,
        "data_digest": result.data_digest,
        "metrics": _known(result.estimator_row),
        "mean_pose": {} if result.baseline is None else _known(result.baseline),
        "samples_uri": files["samples.parquet"] if result.with_joints or result.with_mesh else None,
        "predictor": result.estimator,
        "files": files,
    }
    uri = storage.join(place, "result.json")
    storage.write_json_atomic(uri, facts)
    return Receipt.of(uri)


def _known(row: EvaluationRow) -> dict[str, float]:
    return {name: value for name, value in row.metrics.items() if value == value}


def log(workspace: Workspace, model: str, found: Sequence[VersionResult]) -> list[str]:
    """Track a version's numbers in a run of its own as `eval/<benchmark>/<metric>`, and under the names that trainings
    and evaluations have (`eval/SET/product/METRIC`, `.../mean_pose/...`), with the same files.

    Returns what drifted since its last evaluation, a sentence each; the run keeps them as its tag `drift`.
    """
    tracker = Tracker.of(workspace)
    before = next((run for run in tracker.history(KIND) if run.tags.get("model") == model), None)
    metrics = {f"eval/{m.benchmark}/{name}": value for m in found for name, value in m.metrics.items()}
    data = {m.benchmark: m.data_digest for m in found}
    flags: list[str] = []
    if before is not None:
        changed = [name for name, digest in data.items() if before.tags.get(f"data.{name}", digest) != digest]
        flags = drifts(before.metrics, metrics, changed, before.tags.get("code_digest") != code_digest())
    recipe = ModelBundle.load(model_folder(workspace, model)).recipe
    tags = {
        "model": model,
        "drift": json.dumps(flags),
        **{f"data.{name}": d for name, d in data.items()},
        **flow_tags(),
    }
    lineage = [Lineage(m.set_name, workspace.shard_set(m.set_name), m.data_digest) for m in found]
    with tracker.ending(tracker.start_run(KIND, recipe, tags, lineage, run_name=f"{KIND} {model}")) as run_id:
        tracker.log_metrics(run_id, metrics)
        for m in found:
            for row, values in ((PRODUCT, m.metrics), ("mean_pose", m.mean_pose)):
                tracker.log_metrics(run_id, {f"eval/{m.set_name}/{row}/{name}": v for name, v in values.items()})
            for uri in m.files.values():
                tracker.log_file(run_id, uri, f"evaluation/{m.set_name}")
    return flags


def drifts(
    before: Mapping[str, float], now: Mapping[str, float], changed_data: Sequence[str], changed_code: bool
) -> list[str]:
    """What moved by more than 0.5 % since the last evaluation of the same weights, and what may be the reason.

    before, now: numbers under `eval/<benchmark>/<metric>`; changed_data: benchmarks with another digest than then.
    """
    sentences = []
    for name in sorted(before.keys() & now.keys()):
        benchmark, metric = name.split("/")[1:3]
        if metric not in HEADLINES or abs(now[name] - before[name]) <= DRIFT * abs(before[name]):
            continue
        reasons = ["the data changed"] * (benchmark in changed_data) + ["the code changed"] * changed_code
        why = " and ".join(reasons) or "same data and code: libraries or machine"
        sentences.append(f"{benchmark} {HEADLINES[metric]} {before[name]:.3f} -> {now[name]:.3f} ({why}).")
    return sentences


def decide(
    workspace: Workspace, champion: str | None, found: Mapping[str, Sequence[VersionResult]], homes: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The gate over all measured versions, the best challenger first; returns (model, sentence) of each challenger.

    found: by model URI, without the benchmarks on which it could not be measured; a challenger that lacks one stays
    what it is. homes: model -> the shard set of its recipe on which it must beat the mean pose. At most one version
    takes the alias; the others are judged against it.
    """
    tracker, expected = Tracker.of(workspace), benchmarks(workspace)

    def record(model: str, won: bool, reason: str) -> None:
        name, _, version = model.removeprefix("models:/").partition("/")
        tracker.record_decision(ModelVersion(name, int(version)), won, reason)
        decisions.append((model, reason))

    holder, decisions, complete = champion, list[tuple[str, str]](), list[str]()
    for model in (model for model in found if model != champion):
        if missing := expected.keys() - {m.benchmark for m in found[model]}:
            record(model, False, f"Stays challenger: it could not be measured on {', '.join(sorted(missing))}.")
        else:
            complete.append(model)
    for model in sorted(complete, key=lambda model: _home(found[model], homes[model]).score.error_mm):
        score = _home(found[model], homes[model]).score
        if holder is None:
            won, reason = judge(score, None)
        else:
            won, reason = judge_succession(score, _pairs(found.get(holder, ()), found[model]), holder)
        record(model, won, reason)
        holder = model if won else holder
    return decisions


def home_set(workspace: Workspace, model: str) -> str:
    """The first held-out set of the model's own recipe."""
    return exported_recipe(model_folder(workspace, model)).data.evaluate[0]


def table(workspace: Workspace, runs: int = 20) -> list[dict[str, Any]]:
    """The last evaluations out of the tracker, the newest first: a row per run and benchmark."""
    rows = []
    for run in Tracker.of(workspace).history(KIND, runs):
        when = datetime.fromtimestamp(run.started_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        headlines = (name.split("/") for name in run.metrics if name.startswith("eval/"))
        for benchmark in sorted({words[1] for words in headlines if len(words) == 3}):
            values = {
                title: round(run.metrics[f"eval/{benchmark}/{metric}"], 3)
                for metric, title in HEADLINES.items()
                if f"eval/{benchmark}/{metric}" in run.metrics
            }
            drift = " ".join(s for s in json.loads(run.tags["drift"]) if s.startswith(f"{benchmark} "))
            rows.append({"when": when, "model": run.tags["model"], "benchmark": benchmark, **values, "drift": drift})
    return rows


def _home(found: Sequence[VersionResult], home: str) -> VersionResult:
    return next((m for m in found if m.set_name == home), found[0])


def _pairs(champion: Sequence[VersionResult], challenger: Sequence[VersionResult]) -> list[Any]:
    mine = {m.benchmark: m for m in champion if m.samples_uri}
    return [
        paired_difference(m.benchmark, mine[m.benchmark].errors_mm(), m.errors_mm())
        for m in challenger
        if m.samples_uri and m.benchmark in mine and mine[m.benchmark].data_digest == m.data_digest
    ]
