"""Flow `reproduce-table`: a table of the paper, reproduced here, beside the paper's values and later work."""

from __future__ import annotations

from contextlib import ExitStack

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from maskhand.cluster.session import ray_session
from maskhand.paper import plan as planning
from maskhand.paper import results, run
from maskhand.paper.comparison import Comparison
from maskhand.paper.tables import TableName, paper_table, table_names
from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace


@step("reproduce-row")
def reproduce_row(
    workspace: str,
    table: TableName,
    row: str,
    embedded: bool,
    budget_steps: int | None,
    overrides: list[str],
    seed_offset: int,
) -> Receipt:
    with progress_artifact(f"table {table}, {row}", slug("progress-table", str(table), row)) as progress:
        home = workspace_for(workspace)
        entry = paper_table(table).row(row)
        wanted = planning.plan(home, table, entry, embedded, budget_steps, overrides, seed_offset)
        return run.run_row(home, wanted, progress)


@flow(name="reproduce-table")
def reproduce_table(
    table: int | str = 2,
    embedded: bool = False,
    budget_steps: int | None = None,
    seeds: int = 1,
    overrides: list[str] = [],  # noqa: B006
    workspace: str | None = None,
) -> Receipt:
    """Train and evaluate the rows of a table for which this machine has data; list what is missing for the others.

    table: 1 to 17, `claims`, `choices`, `hypotheses` or `all`; embedded: all rows, at small scale on synthetic hands;
    budget_steps: steps of each training (default: the recipe's); seeds: trainings per row; overrides: of every row's
    recipe; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    names = table_names(str(table))
    with ExitStack() as session:
        comparisons = [_reproduce(home, name, embedded, budget_steps, seeds, overrides, session) for name in names]
    receipts = [results.write(home, comparison, embedded) for comparison in comparisons]
    return results.write_all(home, comparisons, embedded) if len(names) > 1 else receipts[0]


def _reproduce(
    home: Workspace,
    table: TableName,
    embedded: bool,
    budget_steps: int | None,
    seeds: int,
    overrides: list[str],
    session: ExitStack,
) -> Comparison:
    """Run and compare one table. session: keeps Ray running for all rows, as each start and stop costs seconds."""
    if embedded:
        with progress_artifact(f"table {table}, data", slug("progress-table", str(table), "data")) as progress:
            planning.prepare(home, table, embedded, overrides, progress)
    plans = planning.plans(home, table, embedded, budget_steps, overrides, seeds)
    ready = [plan for plan in plans if plan.runs]
    if any(plan.row.trains for plan in ready):
        session.enter_context(ray_session())
    receipts = [
        run_cached(
            reproduce_row,
            planning.digests(home, plan),
            str(home.root),
            table,
            plan.row.id,
            embedded,
            budget_steps,
            overrides,
            plan.seed_offset,
        )
        for plan in ready
    ]
    comparison = results.compare(plans, receipts)
    key = slug("paper-table", str(table), "embedded" if embedded else "full")
    create_markdown_artifact(comparison.to_markdown(), key=key, description="the paper's table beside ours")
    return comparison
