"""Flow `evaluate-maskhand`: a model on held-out shard sets, compared with the mean pose; weekly and on registration."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_image_artifact

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step, table
from maskhand.steps import evaluate, registration
from maskhand.steps.receipt import Receipt


@step("evaluate")
def measure(workspace: str, model: str, sets: list[str]) -> evaluate.EvaluationReceipt:
    with progress_artifact("evaluate", "progress-evaluate") as progress:
        return evaluate.evaluate(workspace_for(workspace), model, sets, progress)


@flow(name="evaluate-maskhand")
def evaluate_maskhand(
    model: str = "models:/maskhand@challenger",
    sets: list[str] = [],  # noqa: B006
    workspace: str | None = None,
) -> Receipt:
    """Evaluate a model and log its metrics and images to the tracking store; aliases change only on registration.

    model: an exported folder or models:/NAME@ALIAS; sets: held-out shard sets (default: the recipe's); workspace:
    default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    receipt = run_cached(measure, evaluate.input_digests(home, model, sets), str(home.root), model, sets)
    show(receipt)
    registration.track(home, receipt)
    return receipt


def show(receipt: Receipt) -> None:
    """Publish the table and the contact sheets on the server; called by every flow that evaluates."""
    columns, rows = evaluate.table(receipt)
    what = f"{evaluate.of_model(receipt)}: errors beside the mean pose's"
    table("evaluation", [dict(zip(columns, row, strict=True)) for row in rows], what)
    for name, sheet in evaluate.sheets(receipt).items():
        create_image_artifact(evaluate.as_data_url(sheet), key=slug("contact-sheet", name), description=sheet)
