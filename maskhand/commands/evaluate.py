"""Subcommands for a trained model: evaluation on shard sets, the hands of a photo or a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskhand.commands.options import (
    ModelOption,
    WorkspaceOption,
    examples,
    print_receipt,
    shown_progress,
    workspace_at,
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
        int, typer.Option(min=1, help="Ray workers, each with a GPU where Ray has some; any number gives the same.")
    ] = 1,
    changes: Annotated[
        list[str],
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Inference settings: keys below sampler. and evaluate."),
    ] = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Measure a model on held-out shard sets: the paper's procedure at every T of evaluate.iterations, the model's own
    estimator, the mean pose."""
    from maskhand.progress import print_table
    from maskhand.steps import evaluate as step

    home = workspace_at(workspace)
    sets = [*on, *(step.benchmark_sets(home, benchmark) if benchmark else [])]
    with shown_progress("evaluate") as progress:
        receipt = step.evaluate(home, model, sets, progress, workers, changes)
    print_table("evaluation", *step.table(receipt))
    typer.echo(step.page_uri(receipt))
    print_receipt(receipt)


@app.command(
    epilog=examples(
        "predict hand.jpg --out out",
        "predict hand.jpg --out out --box 120,80,360,330 --side left",
        "predict hand.jpg --out out --method model --model models:/maskhand@champion",
        "predict hand.jpg --out out --hypotheses 100",
    )
)
def predict(
    photo: Annotated[Path, typer.Argument(help="A JPEG or PNG file.")],
    out: Annotated[Path, typer.Option(help="Folder for overlay, meshes and JSON.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="`open`: the model that ships; an exported folder, or models:/NAME@ALIAS [default: open].",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="The hand's box in pixels [default: found].")
    ] = None,
    side: Annotated[Literal["right", "left"] | None, typer.Option(help="The hand's side [default: found].")] = None,
    focal: Annotated[
        float | None, typer.Option(metavar="PX", help="The photo's focal length [default: assumed].")
    ] = None,
    camera: Annotated[
        Literal["keypoints", "model"], typer.Option(help="What places the mesh: the 2D keypoints, or the model alone.")
    ] = "keypoints",
    method: Annotated[
        Literal["fit", "model", "refine"] | None,
        typer.Option(
            help="A fit to the detected keypoints, the network, or a fit to both [default: refine; fit with another "
            "hand model than the open one].",
            show_default=False,
        ),
    ] = None,
    hypotheses: Annotated[
        int, typer.Option(min=0, help="Also draw so many hands that the photo allows, nearest to their middle first.")
    ] = 0,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out hands whose keypoints have less confidence on average.")
    ] = 0.0,
    workspace: WorkspaceOption = None,
) -> None:
    """Find the hands in a photo and write overlay PNG, meshes (.obj, .glb) and a JSON with MANO parameters."""
    from maskhand.steps import hands as step

    paths = step.predict(
        workspace_at(workspace),
        photo,
        out,
        model,
        _numbers(box),
        side,
        focal,
        camera,
        hypotheses,
        method,
        min_confidence,
    )
    for path in paths:
        typer.echo(str(path))
    for line in step.findings(paths[-1]):
        typer.echo(line)


@app.command(
    epilog=examples(
        'generate "the letter A in American Sign Language" --out out --model DIR',
        'generate "the letter W in American Sign Language" --out out --count 16 --seed 3',
    )
)
def generate(
    text: Annotated[str, typer.Argument(help="What the hands are to show.")],
    out: Annotated[Path, typer.Option(help="Folder for meshes, image and JSON.")],
    model: Annotated[
        str, typer.Option(help="An exported folder of a model that reads text, or models:/NAME@ALIAS.")
    ] = "models:/maskhand-text@challenger",
    count: Annotated[int, typer.Option(min=1, help="Hands.")] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same hands.")] = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Hands from a text: meshes (.obj, .glb), an image of them and a JSON with MANO parameters."""
    from maskhand.steps import hands as step

    for path in step.generate(workspace_at(workspace), text, out, model, count, seed):
        typer.echo(str(path))


def _numbers(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--box {text!r}: expected four numbers X0,Y0,X1,Y1 in pixels") from None
    return x0, y0, x1, y1
