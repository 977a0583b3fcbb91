"""The subcommand to view hands in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskhand.commands.options import WorkspaceOption, examples, output_file, shown_progress, workspace_at

app = typer.Typer()


@app.command(
    epilog=examples("view hand.jpg", "view hand.jpg --hypotheses 200 --open", "view out", "view out/hand.json")
)
def view(
    what: Annotated[Path, typer.Argument(help="A photo, or the folder or a JSON file that `predict` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file [default: beside the result, or here].", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For a photo: as for `predict` [default: open].", show_default=False),
    ] = None,
    method: Annotated[
        Literal["fit", "model", "refine"] | None,
        typer.Option(help="For a photo: as for `predict` [default: refine].", show_default=False),
    ] = None,
    hypotheses: Annotated[int, typer.Option(min=0, help="For a photo: hypotheses sampled for each hand.")] = 50,
    iterations: Annotated[
        int, typer.Option(min=1, help="For a photo: iterations T of decoding the tokens to show.")
    ] = 5,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write one HTML page with photo, rotatable meshes, hypotheses, expected errors, and the decoding of the tokens.

    The page is self-contained: it loads nothing and needs no server, so it can be opened or sent as a file.
    """
    from maskhand.steps import view as step

    if out is not None:
        output_file(str(out), what, *(what.glob("*.json*") if what.is_dir() else ()))
    with shown_progress("view") as progress:
        page = step.view(workspace_at(workspace), what, out, model, method, hypotheses, iterations, progress)
    typer.echo(str(page))
    if open_page:
        typer.launch(page.as_uri())
