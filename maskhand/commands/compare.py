"""`maskhand compare`: a comparison of runs."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhand.commands.options import WorkspaceOption, examples, print_receipt, workspace_at

app = typer.Typer()


@app.command(
    epilog=examples(
        "compare models:/maskhand@champion models:/maskhand@challenger",
        "compare transformer-quick-33fec7d84dd8 8a7c2047c8fc42e5b25caa164427549a --out out",
        "compare reports/evaluation-quick-9122898aedfb-2cb2d6 runs/RUN/export",
    )
)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="The id or name of a tracked run, models:/NAME@ALIAS, `open`, or the folder of an exported model or "
            "of an evaluation's report. The first run is the reference.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder for the page, its JSON, and sheets of the hands.", show_default=False)
    ] = None,
    hands: Annotated[int, typer.Option(min=0, help="Number of hands that changed most, for each run and set.")] = 8,
    workspace: WorkspaceOption = None,
) -> None:
    """Compare runs: their different settings, their metrics on the same hands with 95 % intervals of the paired
    differences, and the hands that changed most."""
    from maskhand.comparison.tables import notes, tables
    from maskhand.progress import print_facts, print_table
    from maskhand.steps import compare as step

    home = workspace_at(workspace)
    comparison = step.compare_runs(home, runs, hands)
    print_facts("runs, the first one the reference", [(run.label, run.source) for run in comparison.runs])
    for table in tables(comparison):
        print_table(table.title, table.columns, table.rows)
    for note in notes(comparison):
        typer.echo(f"* {note}")
    if out is not None:
        receipt, more = step.write_comparison(home, comparison, out)
        for note in more:
            typer.echo(f"* {note}")
        typer.echo(f"{receipt.folder}/{step.PAGE}")
        print_receipt(receipt)
