"""Flow `train-maskhand`: train, evaluate and register the masked transformer."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from maskhand.pipelines.evaluate_maskhand import measure, show
from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, step
from maskhand.pipelines.train_vq_mano import train_vq_mano
from maskhand.recipe_files import load_recipe
from maskhand.steps import evaluate, registration, train
from maskhand.steps.evaluate import EvaluationReceipt
from maskhand.steps.receipt import Receipt
from maskhand.steps.registration import RegistrationReceipt
from maskhand.steps.train import TrainingReceipt

REGISTERED = "maskhand.model.registered"
"""The event that triggers the evaluation of a new model (prefect.yaml)."""


@dataclass(frozen=True)
class TrainedModel:
    """The results of the flow."""

    model: TrainingReceipt
    evaluation: EvaluationReceipt
    registered: RegistrationReceipt


@step("train-transformer")
def transformer(workspace: str, recipe: str, overrides: list[str], tokenizer: str, label: str) -> TrainingReceipt:
    with progress_artifact("train masked transformer", "progress-train-maskhand") as progress:
        return train.train_transformer(workspace_for(workspace), recipe, overrides, tokenizer, label, progress)


@step("register")
def register(workspace: str, model: str, evaluation: str, run_id: str) -> RegistrationReceipt:
    receipt, is_new = registration.register(workspace_for(workspace), model, evaluation, run_id)
    if is_new:
        emit_event(
            REGISTERED,
            resource={"prefect.resource.id": "maskhand.model", "prefect.resource.name": "maskhand"},
            payload={"model": receipt.model, "workspace": workspace},
        )
    return receipt


@flow(name="train-maskhand")
def train_maskhand(
    recipe: str = "quick",
    overrides: list[str] = [],  # noqa: B006
    tokenizer: str | None = None,
    label: str = "",
    workspace: str | None = None,
) -> TrainedModel:
    """Train the masked transformer, evaluate it on the recipe's held-out sets, register it and set its alias.

    recipe: a shipped recipe or a YAML file; overrides: such as training.optim.steps=200; tokenizer: folder of a trained
    VQ-MANO, or the shipped `open` or `open_model` (default: `tokenizer_training.checkpoint`, else `train-vq-mano`
    trains or finds the recipe's own); label: distinguishes another training with the same settings; workspace: default
    `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    root = str(home.root)
    tokenizer = tokenizer or load_recipe(recipe, overrides).tokenizer_training.checkpoint
    if tokenizer is None:
        train.check_before_tokenizer(home, recipe, overrides, label)
    folder = tokenizer or train_vq_mano(recipe, overrides, "", root).folder
    digests = train.input_digests(home, recipe, overrides, label, folder)
    model = run_cached(transformer, digests, root, recipe, overrides, folder, label)
    measured = run_cached(measure, evaluate.input_digests(home, model.folder, []), root, model.folder, [])
    show(measured)
    registered = run_cached(register, {"evaluation": measured.digest}, root, model.folder, measured.uri, model.run_id)
    facts, now = _summary(model, measured, registered), registration.standing(home, registered)
    create_markdown_artifact(facts, key="model-registered", description=now)
    return TrainedModel(model, measured, registered)


def _summary(model: Receipt, measured: Receipt, registered: RegistrationReceipt) -> str:
    facts = {"weights": model.uri, "evaluation": measured.uri, **registered.facts}
    return f"# {registered.model}\n\n" + "\n".join(f"* **{name}**: {value}" for name, value in facts.items())
