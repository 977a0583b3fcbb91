"""Verbs of a trained model: evaluation on shard sets, the hands of a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskhand.commands.options import WorkspaceOption, current_workspace, examples, say, shown_progress

app = typer.Typer()


@app.command(
    epilog=examples(
        "evaluate", "evaluate --model workspace/runs/.../export --on freihand/evaluation", "evaluate --on X"
    )
)
def evaluate(
    model: Annotated[
        str, typer.Option(help="An exported folder, or models:/NAME@ALIAS.")
    ] = "models:/maskhand@champion",
    on: Annotated[
        list[str], typer.Option(metavar="SET", help="Shard sets [default: the recipe's].", show_default=False)
    ] = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Measure a model on held-out shard sets, beside a predictor that always says the mean pose."""
    from maskhand.progress import print_table
    from maskhand.steps import evaluate as step

    with shown_progress("evaluate") as progress:
        receipt = step.evaluate(current_workspace(), model, on, progress)
    print_table("evaluation", *step.table(receipt))
    say(receipt)


@app.command(
    epilog=examples("predict hand.jpg --out out", "predict hand.jpg --out out --box 120,80,360,330 --side left")
)
def predict(
    photo: Annotated[Path, typer.Argument(help="A JPEG or PNG file.")],
    out: Annotated[Path, typer.Option(help="Folder for overlay, meshes and JSON.")],
    model: Annotated[
        str, typer.Option(help="An exported folder, or models:/NAME@ALIAS.")
    ] = "models:/maskhand@challenger",
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
    workspace: WorkspaceOption = None,
) -> None:
    """Find the hands in a photo and write overlay PNG, meshes (.obj, .glb) and a JSON with MANO parameters."""
    from maskhand.steps import evaluate as step

    for path in step.predict(current_workspace(), photo, out, model, _numbers(box), side, focal, camera):
        typer.echo(str(path))


def _numbers(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--box {text!r}: expected four numbers X0,Y0,X1,Y1 in pixels") from None
    return x0, y0, x1, y1
