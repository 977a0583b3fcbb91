"""Flow `reproduce-table`: a table of the paper, run here, beside the paper's values and later work."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from maskhand.steps import tables
from maskhand.steps.receipt import Receipt
from pipelines.runtime import workspace_for
from pipelines.step import done, slug, step, told


@step("reproduce-row")
def reproduce_row(
    workspace: str,
    number: int,
    row: str,
    embedded: bool,
    budget_steps: int | None,
    overrides: list[str],
    digests: dict[str, str],
) -> Receipt:
    with told(f"table {number}, {row}", slug("progress-table", str(number), row)) as progress:
        home = workspace_for(workspace)
        plans = tables.plans(home, number, embedded, budget_steps, overrides)
        wanted = next(plan for plan in plans if plan.row.id == row)
        return tables.run_row(home, number, wanted, embedded, progress)


@flow(name="reproduce-table")
def reproduce_table(
    table: int = 2,
    embedded: bool = False,
    budget_steps: int | None = None,
    overrides: list[str] = [],  # noqa: B006
    workspace: str | None = None,
) -> Receipt:
    """Train and measure the rows of a table that this machine has data for; the others say what is missing.

    table: 1 to 17; embedded: every row, small, on the synthetic hands; budget_steps: of each training (else the
    recipes' own); overrides: of every row's recipe; workspace: else `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    with told(f"table {table}, data", slug("progress-table", str(table), "data")) as progress:
        tables.prepare(home, table, embedded, progress)
    plans = tables.plans(home, table, embedded, budget_steps, overrides)
    receipts = [
        done(
            reproduce_row,
            str(home.root),
            table,
            plan.row.id,
            embedded,
            budget_steps,
            overrides,
            tables.digests(home, plan),
        )
        for plan in plans
        if plan.runs
    ]
    comparison = tables.compare(table, plans, receipts)
    key = slug("paper-table", str(table), "embedded" if embedded else "full")
    create_markdown_artifact(comparison.to_markdown(), key=key, description="the paper's table beside ours")
    return tables.write(home, comparison, embedded)
