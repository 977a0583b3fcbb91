"""What a person calls a run, as something to compare: tracked runs, registered and exported models, reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maskhand import storage
from maskhand.cluster.run_folder import METRICS
from maskhand.comparison.records import BY_HAND, ComparedRun, ComparisonError, Curve, MeasuredSet
from maskhand.config import ConfigError, Recipe
from maskhand.evaluation.report import JOINTS
from maskhand.evaluation.summary import SUMMARY, EvaluationSummary, SetSummary
from maskhand.models.bundle_records import BundleError, bundle_digest
from maskhand.recipe_files import parse_recipe
from maskhand.shipped_models import OPEN
from maskhand.steps.kept_results import CURVES, curves_of, hands_of, joints_of
from maskhand.steps.models import exported_recipe, model_folder
from maskhand.steps.names import BUNDLE_FILE
from maskhand.tracking import TrackedRun, Tracker
from maskhand.workspace import Workspace
from maskhand.yaml_text import YamlError, read_yaml

_OUTCOMES = ("failed", "without_2d_pose", "rejected_in_shards", "held_out_pa_mpjpe_mm", "recipe", "recipe_digest")
"""Facts of an evaluation that were found, not asked, or stand among the parameters."""
_TAGS = ("kind", "code_digest", "git_sha", "model_digest")
_EXPECTED = (
    "expected the id or name of a tracked run, models:/NAME@ALIAS, `open`, an exported model's folder, or a report's "
    f"(with {SUMMARY})"
)


def compared_run(workspace: Workspace, text: str) -> ComparedRun:
    """The run that a person means. Raises ComparisonError; LookupError for a model that is not registered."""
    if not text.strip():
        raise ComparisonError(f"a run without a name; {_EXPECTED}")
    if text.startswith("models:/"):
        return _registered(workspace, text)
    if text == OPEN:
        return _exported(workspace, model_folder(workspace, text), text)
    folder = text.removesuffix(SUMMARY).rstrip("/") or "."
    if storage.exists(storage.join(folder, SUMMARY)):
        return _reported(workspace, storage.join(folder, SUMMARY))
    for exported in (folder, f"{folder}/export"):
        if (Path(exported) / BUNDLE_FILE).is_file():
            return _exported(workspace, exported, Path(folder).name)
    if storage.is_remote(text) or Path(text).exists():
        raise ComparisonError(f"{text}: neither a report nor an exported model; {_EXPECTED}")
    tracker = Tracker.of(workspace)
    found = tracker.named(text)
    if not found:
        raise ComparisonError(f"{text}: no such run or folder; {_EXPECTED}")
    if len(found) > 1:
        listed = ", ".join(f"{run.run_id} ({_when(run)})" for run in found[:5])
        raise ComparisonError(f"{text}: {len(found)} runs have this name; name one by its id: {listed}")
    return _tracked(tracker, found[0])


def told_apart(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The same runs, those of one label numbered."""
    labels = [run.label for run in runs]
    return [
        replace(run, label=f"{run.label} ({labels[: place + 1].count(run.label)})")
        if labels.count(run.label) > 1
        else run
        for place, run in enumerate(runs)
    ]


def _tracked(tracker: Tracker, run: TrackedRun) -> ComparedRun:
    folder = tracker.download(run.run_id, "evaluation")
    sets = {} if folder is None else _sets_below(folder)
    kept = tracker.download(run.run_id, "recipe.yaml")
    parameters, facts = _as_asked(run.params, sets)
    return ComparedRun(
        label=run.name,
        source=f"{run.tags.get('kind', 'run')} {run.run_id} of {_when(run)}",
        parameters=parameters,
        circumstances=_circumstances(run.tags) | facts,
        sets={name: measured for name, (_, measured) in sets.items()},
        curves={name: tracker.curve(run.run_id, name) for name in run.metrics if name.startswith(CURVES)},
        recipe=None if kept is None else _parsed(kept),
    )


def _circumstances(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[name] for name in _TAGS if name in tags} | {
        name: value for name, value in tags.items() if name.startswith("input.")
    }


def _registered(workspace: Workspace, uri: str) -> ComparedRun:
    """A registered version: the run that made it, and where that has no evaluation the reports on its weights."""
    tracker = Tracker.of(workspace)
    version = tracker.resolve(uri).uri
    made_by = tracker.named(run_id) if (run_id := tracker.run_of(uri)) else []
    if made_by and (run := _tracked(tracker, made_by[0])).sets:
        return replace(run, label=version, source=f"{version}, {run.source}")
    exported = _exported(workspace, model_folder(workspace, uri), version)
    return replace(exported, curves=_tracked(tracker, made_by[0]).curves) if made_by else exported


def _exported(workspace: Workspace, folder: str, label: str) -> ComparedRun:
    """An exported model with what the workspace's reports say of these weights, the newest for each set."""
    digest, recipe = bundle_digest(folder), exported_recipe(folder)
    reports = sorted(
        workspace.reports.glob(f"evaluation-*-{digest}-*/{SUMMARY}"), key=lambda path: path.stat().st_mtime
    )
    sets: dict[str, tuple[SetSummary, MeasuredSet]] = {}
    for report in reports:
        sets |= _sets_of(str(report))
    parameters, facts = _as_asked(recipe.flat(), sets)
    return ComparedRun(
        label=label,
        source=f"model {digest} in {folder}",
        parameters=parameters,
        circumstances={"model_digest": digest} | facts,
        sets={name: measured for name, (_, measured) in sets.items()},
        curves=curves_of(_metrics_beside(folder)),
        recipe=recipe,
    )


def _reported(workspace: Workspace, uri: str) -> ComparedRun:
    """An evaluation's report; its recipe is that of the model, where this is still at its place."""
    summary, sets = EvaluationSummary.read(uri), _sets_of(uri)
    recipe, curves = None, dict[str, Curve]()
    try:
        folder = model_folder(workspace, summary.model)
        recipe, curves = exported_recipe(folder), curves_of(_metrics_beside(folder))
    except (LookupError, BundleError, storage.StorageError):  # it was deleted, or is of another version
        pass
    parameters, facts = _as_asked({} if recipe is None else recipe.flat(), sets)
    return ComparedRun(
        label=uri.split("/")[-2],
        source=f"report {uri} on {summary.model}" + ("" if recipe else ", which is no longer there"),
        parameters=parameters,
        circumstances={"model_digest": summary.model_digest} | facts,
        sets={name: measured for name, (_, measured) in sets.items()},
        curves=curves,
        recipe=recipe,
    )


def _sets_of(summary_uri: str) -> dict[str, tuple[SetSummary, MeasuredSet]]:
    """The sets of a report, whose files lie beside it wherever it was copied to."""
    folder = summary_uri.rpartition("/")[0]
    return {
        name: (one, _measured(name, one, storage.join(folder, name)))
        for name, one in EvaluationSummary.read(summary_uri).sets.items()
    }


def _sets_below(folder: Path) -> dict[str, tuple[SetSummary, MeasuredSet]]:
    """The sets whose files a tracked run keeps."""
    found = {}
    for path in sorted(folder.rglob("result.json")):
        name = path.parent.relative_to(folder).as_posix()
        summary = SetSummary.read(str(path))
        found[name] = (summary, _measured(name, summary, str(path.parent)))
    return found


def _measured(name: str, summary: SetSummary, folder: str) -> MeasuredSet:
    hands = joints = None
    if storage.exists(uri := storage.join(folder, "samples.parquet")):
        hands = hands_of(uri, summary.product, *BY_HAND)
    if storage.exists(uri := storage.join(folder, JOINTS)):
        joints = joints_of(uri)
    return MeasuredSet(
        name=name,
        set_uri=summary.set,
        data_digest=summary.data_digest,
        count=summary.count,
        estimator=summary.product,
        metrics=summary.product_row.known,
        hands=hands,
        joints=joints,
    )


def _as_asked(
    recipe: Mapping[str, str], sets: Mapping[str, tuple[SetSummary, MeasuredSet]]
) -> tuple[dict[str, str], dict[str, str]]:
    """(parameters, with the sampler that the evaluation was asked for; its other facts and its data).

    No parameters without a recipe.
    """
    parameters, facts = dict(recipe), dict[str, str]()
    for name, (summary, _) in sets.items():
        known = dict(summary.facts)
        asked = _flat("sampler", known.pop("sampler", {}))
        parameters |= asked if recipe else {}
        facts |= {f"data.{name}": summary.data_digest, f"estimator.{name}": summary.product}
        facts["model_digest"] = summary.model_digest
        facts |= _flat("evaluation", {key: value for key, value in known.items() if key not in _OUTCOMES})
    return parameters, facts


def _flat(prefix: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {prefix: str(value)}
    return {
        key: one
        for name, inner in value.items()
        if name not in _OUTCOMES
        for key, one in _flat(f"{prefix}.{name}", inner).items()
    }


def _parsed(recipe_yaml: Path) -> Recipe | None:
    try:
        return parse_recipe(read_yaml(recipe_yaml.read_text()), str(recipe_yaml))
    except (ConfigError, YamlError):
        return None  # of another version


def _metrics_beside(export: str) -> Path:
    """The reports of the training whose folder has the exported model; no such file for a model copied alone."""
    return Path(export).parent / METRICS


def _when(run: TrackedRun) -> str:
    return datetime.fromtimestamp(run.started_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
