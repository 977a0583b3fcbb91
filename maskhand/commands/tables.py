"""Verb: the tables of the paper, reproduced."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhand.commands.options import SetOption, WorkspaceOption, current_workspace, examples, say, shown_progress

app = typer.Typer()


@app.command(
    "reproduce-table",
    epilog=examples(
        "reproduce-table 2", "reproduce-table 5 --embedded --budget-steps 200", "reproduce-table 12 --embedded"
    ),
)
def reproduce_table(
    number: Annotated[int, typer.Argument(min=1, max=17, help="Table of the paper.")],
    embedded: Annotated[bool, typer.Option("--embedded", help="Every row, small, on the synthetic hands.")] = False,
    budget_steps: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Steps of each training [default: the recipe's].")
    ] = None,
    set_: SetOption = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Run the rows of a table that this machine has data for, and set them beside the paper and later work."""
    from contextlib import nullcontext

    from maskhand.cluster.session import ray_session
    from maskhand.progress import print_table
    from maskhand.steps import tables
    from maskhand.tables.comparison import COLUMNS

    home = current_workspace()
    with shown_progress("data of the embedded benchmark") as progress:
        tables.prepare(home, number, embedded, progress)
    plans = tables.plans(home, number, embedded, budget_steps, set_)
    ready = [plan for plan in plans if plan.runs]
    done = []
    with ray_session() if any(plan.row.trains for plan in ready) else nullcontext():
        for place, plan in enumerate(ready, 1):
            with shown_progress(f"{plan.row.id} ({place} of {len(ready)})") as progress:
                done.append(tables.run_row(home, number, plan, embedded, progress))
    comparison = tables.compare(number, plans, done)
    rows, notes = comparison.cells()
    print_table(f"table {number}: {comparison.title}", COLUMNS, rows)
    for place, note in enumerate(notes, 1):
        typer.echo(f"{place}. {note}")
    typer.echo(comparison.setting)
    if len(ready) < len(plans) and not embedded:
        typer.echo("--embedded runs every row small, on the synthetic hands.")
    say(tables.write(home, comparison, embedded))
