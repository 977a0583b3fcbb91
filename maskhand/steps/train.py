"""The training steps: one tracked run each, on Ray workers, continued or found again by a second call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskhand.cluster.run_folder import METRICS, FitResult, finished, held_run, unfinished_beside
from maskhand.cluster.train import fit
from maskhand.config import ConfigError, Recipe
from maskhand.models.tokenizer_files import check_tokenizer, tokenizer_digest, tokenizer_folder
from maskhand.path_names import path_name
from maskhand.progress import Progress
from maskhand.recipe_files import load_recipe
from maskhand.shards.layout import IMAGES, MANO
from maskhand.steps import step_inputs, training_checks
from maskhand.steps.exported import calibrate_export, with_settings
from maskhand.steps.names import BUNDLE_FILE, TOKENIZER_FILE, flow_tags
from maskhand.steps.receipt import Receipt
from maskhand.steps.taken_along import TakenAlong
from maskhand.tracking import Lineage, RunReporter, Tracker, TrackingServerError, server_version
from maskhand.training import tokenizer_loop, transformer_loop
from maskhand.training.run_identity import Kind, deciding_values, inference_digest, run_identity
from maskhand.training.worker import WorkerContext
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class TrainingReceipt(Receipt):
    """Names the last file of an exported tokenizer or model."""

    run_id: str
    """Id of the tracked run."""
    steps: int
    restarts: int
    """How often the workers were started again."""


def train_tokenizer(
    workspace: Workspace, recipe: str, overrides: Sequence[str], label: str, progress: Progress
) -> TrainingReceipt:
    """VQ-MANO on the recipe's shard sets and pose files. The receipt names `tokenizer.json` of the exported folder."""
    wanted = load_recipe(recipe, overrides)
    if (given := wanted.tokenizer_training.checkpoint) is not None:
        raise ConfigError(
            f"recipe {wanted.name} takes the tokenizer {given!r} as it is; --set tokenizer_training.checkpoint=null "
            "trains one of these settings"
        )
    inputs = _inputs(workspace, "tokenizer", wanted, label)
    job = tokenizer_loop.TokenizerJob(wanted, workspace.shards_uri, step_inputs.mocap_files(workspace, wanted))
    steps = wanted.tokenizer_training.optim.steps
    return _train("tokenizer", tokenizer_loop.run, job, wanted, inputs, steps, TOKENIZER_FILE, workspace, progress)


def check_before_tokenizer(workspace: Workspace, recipe: str, overrides: Sequence[str], label: str = "") -> None:
    """Raises now what would be found in days: that no transformer can be trained on the recipe's tokenizer.

    Nothing is looked at when the tokenizer is trained already: then `train_transformer` finds it out itself, at once.
    """
    wanted = load_recipe(recipe, overrides)
    if label:
        path_name(label, "label")
    if finished(workspace.runs / _run_name("tokenizer", wanted, _inputs(workspace, "tokenizer", wanted, ""))) is None:
        training_checks.check_transformer(workspace, wanted)


def check_tokenizer_overrides(overrides: Sequence[str]) -> None:
    """ConfigError for keys of the transformer, whose sections of a recipe do not concern VQ-MANO."""
    for override in overrides:
        section = override.partition(".")[0]
        if section in ("training", "model", "sampler", "evaluate"):
            raise ConfigError(
                f"override {override!r}: {section} is the transformer's; VQ-MANO is built by tokenizer and trained by "
                f"tokenizer_training" + (f", write tokenizer_{override}" if section == "training" else "")
            )


def train_transformer(
    workspace: Workspace, recipe: str, overrides: Sequence[str], tokenizer: str, label: str, progress: Progress
) -> TrainingReceipt:
    """The masked transformer on the frozen VQ-MANO in folder `tokenizer`, or `open`. The receipt names the bundle.

    A finished training with another sampler, or other held-out sets, is not repeated: its weights
    make another model, tracked as a run of its own.
    """
    wanted = load_recipe(recipe, overrides)
    if note := starts_from_nothing(wanted):
        logging.getLogger(__name__).warning(note)
    inputs = _inputs(workspace, "transformer", wanted, label, tokenizer)
    tokenizer = str(tokenizer_folder(tokenizer))  # absolute: the workers have a working directory of their own
    check_tokenizer(tokenizer, wanted.tokenizer)
    job = transformer_loop.TransformerJob(
        wanted,
        workspace.shards_uri,
        tokenizer,
        assets=str(workspace.assets),
        held_out=training_checks.training_sets(workspace, wanted),
        mocap=step_inputs.mocap_files(workspace, wanted) if wanted.data.posed_hands else (),
    )
    steps = wanted.training.optim.steps
    return _train("transformer", transformer_loop.run, job, wanted, inputs, steps, BUNDLE_FILE, workspace, progress)


def starts_from_nothing(recipe: Recipe) -> str:
    """A sentence where a published encoder would be trained from random weights.

    "" for a recipe's own small ones, which have a depth in their `kwargs`.
    """
    backbone = recipe.model.backbone
    known = backbone.checkpoint is not None or backbone.is_hand_landmark
    if not recipe.model.sees_image or known or "depth" in backbone.kwargs:
        return ""
    return (
        f"recipe {recipe.name}: {backbone.name} starts from random weights, which hand data hardly makes up for; "
        "--set model.backbone.checkpoint=FILE takes pretrained ones, `maskhand assets` says which"
    )


def input_digests(
    workspace: Workspace, recipe: str, overrides: Sequence[str], label: str, tokenizer: str | None = None
) -> dict[str, str]:
    """Everything that decides a training, the values of the recipe included.

    tokenizer: of a masked transformer; None: VQ-MANO itself is trained.
    """
    wanted = load_recipe(recipe, overrides)
    kind: Kind = "tokenizer" if tokenizer is None else "transformer"
    return _inputs(workspace, kind, wanted, label, tokenizer) | {"recipe": wanted.digest()}


def _inputs(
    workspace: Workspace, kind: Kind, recipe: Recipe, label: str, tokenizer: str | None = None
) -> dict[str, str]:
    """The inputs without the recipe, whose part in the identity of a run depends on the kind of training."""
    digests = step_inputs.training_digests(workspace, kind, recipe)
    if label:
        digests["label"] = path_name(label, "label")
    if tokenizer is not None:
        digests["tokenizer"] = tokenizer_digest(tokenizer_folder(tokenizer))
    return digests


def _run_name(kind: Kind, recipe: Recipe, inputs: Mapping[str, str]) -> str:
    """Name of the run's folder."""
    return f"{kind}-{recipe.name}-{run_identity(kind, recipe, inputs)}"


def _train(
    kind: Kind,
    loop: Callable[[Any, WorkerContext], dict[str, float]],
    job: Any,
    recipe: Recipe,
    inputs: Mapping[str, str],
    steps: int,
    marker: str,
    workspace: Workspace,
    progress: Progress,
) -> TrainingReceipt:
    """Fit under one tracked run: an earlier run of the same identity is continued, a finished one is returned.

    Raises LockedError while another process trains it, on whichever machine.
    """
    identity = run_identity(kind, recipe, inputs)
    decided_by = deciding_values(kind, recipe) | {f"input {name}": digest for name, digest in inputs.items()}
    tracked_as = identity if kind == "tokenizer" else f"{identity}.{inference_digest(recipe)}"
    name = _run_name(kind, recipe, inputs)
    shown = " ".join(filter(None, (name, inputs.get("label"))))
    # Held before MLflow is imported and its database opened: whoever comes second is told at once.
    with held_run(name, workspace.runs, workspace.checkpoints_uri) as run:
        tracker = Tracker.of(workspace)
        server_version(tracker.uri)  # before days of training: whether it answers, and can keep the model
        sets, part = (recipe.data.pose_sets, MANO) if kind == "tokenizer" else (recipe.data.train, IMAGES)
        lineage = [Lineage(s, workspace.shard_set(s), inputs[f"{s}/{part}"]) for s in sets]
        if finished(run.run_dir) is None:
            # Before a run is opened that could only fail.
            training_checks.check_settings(kind, recipe, workspace.assets)
            if kind == "transformer":
                training_checks.check_validation(workspace, recipe)
            workers = recipe.engine.workers
            if (kept := run.checkpoints.last()) is not None:
                logging.getLogger(__name__).warning(
                    f"{kind}: goes on with run {name} from step {kept.step} of {steps}"
                    + (f"; engine.workers was {kept.workers}, and is {workers}" if kept.workers != workers else "")
                )
            elif other := unfinished_beside(run.run_dir, decided_by):
                logging.getLogger(__name__).warning(f"{kind}: run {name} begins; it is another run than {other}")
        tags = {"identity": tracked_as, **{f"input.{key}": digest for key, digest in inputs.items()}, **flow_tags()}
        found = tracker.find_run(kind, tracked_as)
        run_id = found or tracker.start_run(kind, recipe, tags, lineage, run_name=shown)
        if found is not None and not tracker.is_finished(run_id):
            tracker.resume(run_id)
        try:
            done = fit(
                TakenAlong.of(loop, job),
                job,
                run,
                identity=identity,
                decided_by=decided_by,
                engine=recipe.engine,
                worker_counts=training_checks.worker_counts(kind, recipe),
                reporter=RunReporter(tracker.uri, run_id),
                on_progress=lambda step, metrics: progress(step, steps, _words(metrics)),
            )
            export = done.export_dir
            if kind == "transformer":
                export = with_settings(export, recipe)
                calibrate_export(export, recipe, workspace)
            progress(steps, steps, "kept from an earlier run" if done.reused else _words(done.metrics))
        except BaseException as error:
            tracker.end_failed(run_id, error)
            raise
        _record(tracker, run_id, done, export, shown)
    return TrainingReceipt.of(str(export / marker), run_id=run_id, steps=done.steps, restarts=done.restarts)


def _record(tracker: Tracker, run_id: str, done: FitResult, export: Path, shown: str) -> None:
    """End the tracked run of a finished training, with its curves. TrackingServerError where that must wait."""
    try:
        server_version(tracker.uri)  # it answered when the training began
        if done.reused and tracker.is_finished(run_id):
            return
        if export != done.export_dir:  # another model of the same training: told apart, and with its numbers
            tracker.rename(run_id, f"{shown} {export.name}")
            tracker.log_metrics(run_id, done.metrics)
        curves = done.run_dir / METRICS  # another machine has them where the run was taken up from a store
        filled = tracker.log_history(run_id, curves) if curves.exists() else 0
        if filled and export == done.export_dir:
            logging.getLogger(__name__).warning(f"{shown}: {filled} points of its curves came into the record only now")
        tracker.end_run(run_id)
    except TrackingServerError as error:
        raise TrackingServerError(
            f"the training is done, its model is in {export}, and {error}. The same command, when it answers again, "
            "trains nothing and completes the record",
            retryable=True,
        ) from error


def _words(metrics: Mapping[str, float]) -> str:
    shown = [name for name in list(metrics)[:2] if name.startswith("train/")]
    shown += [name for name in ("val/pa_mpjpe_mm",) if name in metrics]
    return "  ".join(f"{name.removeprefix('train/')} {metrics[name]:.4g}" for name in shown)
