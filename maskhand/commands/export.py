"""`maskhand export`: a trained model in a format that runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskhand.commands.options import ModelOption, WorkspaceOption, examples, workspace_at

app = typer.Typer()


@app.command(
    epilog=examples(
        "export exported --to onnx",
        "export exported --model models:/maskhand@champion",
    )
)
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for network.onnx and network.json.")],
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",
    model: ModelOption = "open",
    workspace: WorkspaceOption = None,
) -> None:
    """Write a model's encoder and one decoding pass, hand layer included, for ONNX Runtime. Needs the extra `onnx`."""
    from maskhand.steps.export import export as step

    typer.echo("export: torch traces the network, which takes a minute or two", err=True)
    for line in step(workspace_at(workspace), model, folder):
        typer.echo(line)
