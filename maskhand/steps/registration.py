"""The steps after an evaluation: track it, register the model and let the gate decide about its alias."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskhand import storage
from maskhand.config import SamplerConfig
from maskhand.errors import without_passwords
from maskhand.evaluation.result import MEAN_POSE
from maskhand.evaluation.summary import SUBMISSION, EvaluationSummary
from maskhand.kept_json import read_kept
from maskhand.promotion import Score
from maskhand.steps.compare import keep_against
from maskhand.steps.models import exported_recipe, model_folder
from maskhand.steps.names import PRODUCT, flow_tags
from maskhand.steps.receipt import Receipt
from maskhand.tracking import MODEL, TEXT_MODEL, Lineage, Tracker, server_version
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class RegistrationReceipt(Receipt):
    """Names `registered.json`, which has the same fields."""

    model: str
    """`models:/NAME/VERSION`."""
    reason: str
    """What the gate decided, and why."""
    evaluation_digest: str
    run_id: str
    """Tracked run of the training that made the model."""
    pa_mpjpe_mm: float | None = None
    mean_pose_pa_mpjpe_mm: float | None = None
    pa_mpvpe_mm: float | None = None
    mean_pose_pa_mpvpe_mm: float | None = None
    """What the gate looked at: of the first set, of the model's own estimator and of the mean pose."""


def track(workspace: Workspace, evaluation: Receipt, run_id: str | None = None) -> str:
    """Write an evaluation's numbers, tables and contact sheets into a tracked run; returns the run's id.

    `run_id`: the training that made the model; None: a run of its own, whose parameters are the recipe's with the
    sampler that was asked for. Raises TrackingServerError where the server is gone, see `server_version`.
    """
    summary, tracker = EvaluationSummary.read(evaluation.uri), Tracker.of(workspace)
    server_version(tracker.uri)  # the reason is told better than by the first request
    tags = {"model": summary.model, "model_digest": summary.model_digest}
    if run_id is not None:
        tracker.tag(run_id, tags)
        _log(tracker, run_id, summary)
        return run_id
    recipe = exported_recipe(model_folder(workspace, summary.model))
    recipe = recipe.model_copy(update={"sampler": SamplerConfig.model_validate(summary.first.facts["sampler"])})
    lineage = [Lineage(name, result.set, result.data_digest) for name, result in summary.sets.items()]
    name = f"evaluation-{recipe.name}-{summary.model_digest}"
    tags |= flow_tags()
    with tracker.ending(tracker.start_run("evaluation", recipe, tags, lineage, run_name=name)) as run_id:
        _log(tracker, run_id, summary)
    return run_id


def _log(tracker: Tracker, run_id: str, summary: EvaluationSummary) -> None:
    for name, result in summary.sets.items():
        for row in result.rows:
            for key in (row.key, *([PRODUCT] if row.name == result.product else [])):
                tracker.log_metrics(run_id, {f"eval/{name}/{key}/{metric}": v for metric, v in row.known.items()})
        for file, uri in (result.files or {}).items():
            if not file.startswith(SUBMISSION):  # as large as the benchmark, and made again by the same command
                tracker.log_file(run_id, uri, f"evaluation/{name}")
    tracker.log_file(run_id, summary.page, "evaluation")


def register(workspace: Workspace, model: str, evaluation_uri: str, run_id: str) -> tuple[RegistrationReceipt, bool]:
    """Register the exported folder `model`, evaluated in `evaluation_uri`, made by run `run_id`; then the gate decides.

    The first set of the evaluation is the gate's. The receipt names `registered.json` beside the evaluation; the flag
    tells whether that is new: the same model, measured alike, needs no second version.
    """
    evaluation, tracker = Receipt.of(evaluation_uri), Tracker.of(workspace)
    uri = storage.join(evaluation.folder, "registered.json")
    inputs = {"evaluation_digest": evaluation.digest, "run_id": run_id}
    if storage.exists(uri):
        facts = read_kept(uri, "delete it to register the model again", model=str, reason=str)
        if inputs.items() <= facts.items() and _is_there(tracker, facts["model"]):
            return RegistrationReceipt.of(uri, **facts), False
    track(workspace, evaluation, run_id)
    result = EvaluationSummary.read(evaluation_uri).first
    measured = {row.name: row.metrics for row in result.rows}
    score = Score.of_metrics(measured[result.product], measured.get(MEAN_POSE, {}), result.data_digest)
    name = TEXT_MODEL if exported_recipe(model).model.condition == "text" else MODEL
    _keep_against_champion(workspace, tracker, name, run_id)
    decision = tracker.promote(tracker.register_model(model, run_id, score, name))
    numbers = {metric: round(value, 3) for metric, value in score.as_numbers().items() if math.isfinite(value)}
    facts = {"model": decision.version.uri, "reason": decision.reason, **numbers, **inputs}
    storage.write_json_atomic(uri, facts)
    return RegistrationReceipt.of(uri, **facts), True


def _keep_against_champion(workspace: Workspace, tracker: Tracker, name: str, run_id: str) -> None:
    """How the hands of a run stand to those of the champion of this moment, if it is another's, as files of the run."""
    try:
        champion = tracker.resolve(f"models:/{name}@champion").uri
        if tracker.run_of(champion) != run_id:
            keep_against(workspace, run_id, champion, "champion")
    except LookupError:
        return


def _is_there(tracker: Tracker, model: str) -> bool:
    try:
        tracker.resolve(model)
    except LookupError:
        return False
    return True


def standing(workspace: Workspace, registered: RegistrationReceipt) -> str:
    """The version that a receipt of `register` names and the aliases that it has now, such as `models:/maskhand/3,
    challenger`."""
    tracker, model = Tracker.of(workspace), registered.model
    try:
        version = tracker.resolve(model)
    except LookupError:
        return f"{model}, which is no longer in {without_passwords(tracker.uri)}"
    return ", ".join([version.uri, *tracker.aliases(version)])
