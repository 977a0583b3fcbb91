"""Subcommands for a trained model: evaluation on shard sets, and hands from a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskhand.commands.options import (
    ModelOption,
    WorkspaceOption,
    examples,
    print_receipt,
    shown_progress,
    workspace_at,
    writable_workspace_at,
)

app = typer.Typer()


@app.command(
    epilog=examples(
        "evaluate",
        "evaluate --on freihand_synth/evaluation",
        "evaluate --model models:/maskhand@champion --benchmark synthetic --workers 2",
        "evaluate --set evaluate.iterations=[1,10] --set sampler.temperature=1",
    )
)
def evaluate(
    model: ModelOption = "models:/maskhand@challenger",
    on: Annotated[
        list[str], typer.Option(metavar="SET", help="Shard sets [default: the recipe's].", show_default=False)
    ] = [],  # noqa: B006
    benchmark: Annotated[
        str | None,
        typer.Option(help="Its sets: freihand, ho3d_v3, dexycb, hint, interhand, synthetic ...", show_default=False),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of Ray workers, each with a GPU if there are any; same results.")
    ] = 1,
    changes: Annotated[
        list[str],
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="Keys below sampler. and evaluate., or model.pose2d_tolerance.",
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Evaluate a model on held-out shard sets: the paper's procedure for every T of evaluate.iterations, the model's
    own estimator, and the mean pose."""
    from maskhand.progress import print_table
    from maskhand.steps import evaluate as step

    home = writable_workspace_at(workspace)
    sets = [*on, *(step.benchmark_sets(home, benchmark) if benchmark else [])]
    with shown_progress("evaluate") as progress:
        receipt = step.evaluate(home, model, sets, progress, workers, changes)
    print_table("evaluation", *step.table(receipt))
    typer.echo(step.page_uri(receipt))
    print_receipt(receipt)


@app.command(
    epilog=examples(
        'generate "the letter A in American Sign Language" --out out --model DIR',
        'generate "the letter W in American Sign Language" --out out --count 16 --seed 3',
    )
)
def generate(
    text: Annotated[str, typer.Argument(help="Description of the hands.")],
    out: Annotated[Path, typer.Option(help="Folder for meshes, image and JSON.")],
    model: Annotated[
        str, typer.Option(help="An exported folder of a model that reads text, or models:/NAME@ALIAS.")
    ] = "models:/maskhand-text@challenger",
    count: Annotated[int, typer.Option(min=1, help="Number of hands.")] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same hands.")] = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Generate hands from a text: meshes (.obj, .glb), an image of them, and a JSON with MANO parameters."""
    from maskhand.steps import generate as step

    for path in step.generate(workspace_at(workspace), text, out, model, count, seed):
        typer.echo(str(path))
