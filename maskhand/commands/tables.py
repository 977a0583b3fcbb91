"""`maskhand reproduce-table`: the tables of the paper, reproduced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maskhand.commands.options import (
    SetOption,
    WorkspaceOption,
    examples,
    print_receipt,
    shown_progress,
    writable_workspace_at,
)

if TYPE_CHECKING:
    from maskhand.paper.comparison import Comparison

app = typer.Typer()


@app.command(
    "reproduce-table",
    epilog=examples(
        "reproduce-table 2",
        "reproduce-table 12 --embedded --seeds 3",
        "reproduce-table claims --embedded --budget-steps 1000 --seeds 3",
        "reproduce-table all --embedded",
    ),
)
def reproduce_table(
    table: Annotated[
        str,
        typer.Argument(
            help="1 to 17: a table of the paper; all: these; claims, choices, hypotheses, additions: see docs."
        ),
    ],
    embedded: Annotated[bool, typer.Option("--embedded", help="All rows, at small scale on synthetic hands.")] = False,
    budget_steps: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Steps of each training [default: the recipe's].")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds per row: gives mean, spread, and decided orderings.")
    ] = 1,
    set_: SetOption = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Run the rows of a table for which this machine has data, and compare them with the paper and later work."""
    from contextlib import ExitStack

    from maskhand.cluster.session import ray_session
    from maskhand.paper import results, run
    from maskhand.paper.plan import plans, prepare
    from maskhand.paper.tables import table_names

    home = writable_workspace_at(workspace)
    names = table_names(table)
    comparisons = []
    with ExitStack() as session:
        for name in names:
            with shown_progress(f"table {name}: data of the embedded benchmark") as progress:
                prepare(home, name, embedded, set_, progress)
            rows = plans(home, name, embedded, budget_steps, set_, seeds)
            ready = [plan for plan in rows if plan.runs]
            if any(plan.row.trains for plan in ready):
                session.enter_context(ray_session())
            done = []
            for place, plan in enumerate(ready, 1):
                title = f"table {name}: {plan.row.id}, seed {plan.recipe.seed} ({place} of {len(ready)})"
                with shown_progress(title) as progress:
                    done.append(run.run_row(home, plan, progress))
            comparisons.append(results.compare(rows, done))
            _show(comparisons[-1])
            print_receipt(results.write(home, comparisons[-1], embedded))
            if len(ready) < len(rows) and not embedded:
                typer.echo("--embedded runs every row small, on the synthetic hands.")
    if len(names) > 1:
        print_receipt(results.write_all(home, comparisons, embedded))


def _show(comparison: Comparison) -> None:
    from maskhand.paper.comparison import COLUMNS, ORDERING_COLUMNS
    from maskhand.paper.orderings import sentences
    from maskhand.progress import print_table

    rows, notes = comparison.cells()
    print_table(comparison.heading, COLUMNS, rows)
    for place, note in enumerate(notes, 1):
        typer.echo(f"{place}. {note}")
    for benchmarks, lacks in comparison.missing_data():
        typer.echo(f"missing data, {benchmarks}:")
        for sentence in lacks:
            typer.echo(f"* {sentence}")
    if comparison.orderings:
        print_table("orderings", ORDERING_COLUMNS, comparison.ordering_cells())
        for sentence in sentences(comparison.orderings):
            typer.echo(f"* {sentence}")
    typer.echo(comparison.setting)
