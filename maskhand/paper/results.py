"""The last steps of `maskhand reproduce-table`: a table of what its rows measured, and all tables in one file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from maskhand import storage
from maskhand.config import Recipe
from maskhand.paper.comparison import Comparison, lines_of
from maskhand.paper.orderings import orderings_of
from maskhand.paper.plan import RowPlan, table_folder, tables_folder
from maskhand.paper.tables import paper_table
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

ALL = "tables.md"


def compare(wanted: Sequence[RowPlan], done: Sequence[Receipt]) -> Comparison:
    """A table of the paper beside ours, from the plans of its rows and the receipts of those that ran."""
    paper = paper_table(wanted[0].table)
    results = [json.loads(storage.read_bytes(receipt.uri)) for receipt in done]
    measured: dict[str, dict[int, dict[str, dict[str, float]]]] = defaultdict(dict)
    for result in results:
        measured[result["row"]][result["seed"]] = result["measured"]
    firsts = {entry.row.id: entry for entry in reversed(wanted)}
    lines = [
        line
        for row in paper.rows
        for line in lines_of(paper, row, measured[row.id], firsts[row.id].missing, _remarks(firsts[row.id]))
    ]
    devices = ", ".join(sorted({result["device"] for result in results})) or "nothing ran"
    seeds = sorted({entry.recipe.seed for entry in wanted})
    trained = any(entry.row.trains and entry.runs for entry in wanted)
    setting = f"{_setting(wanted[0].recipe, wanted[0].embedded, trained)} {_seeds(seeds)} Ran on: {devices}."
    return Comparison(wanted[0].table, paper.title, setting, tuple(lines), tuple(orderings_of(paper, measured)))


@dataclass(frozen=True)
class TableReceipt(Receipt):
    """Names the file of one reproduced table, or of several."""

    numbers: int
    """The paper's, in these tables."""
    measured: int
    """Those that were measured here."""
    tables: int | None = None
    """How many, where the file is of several."""


def write(workspace: Workspace, comparison: Comparison, embedded: bool) -> TableReceipt:
    """Write `table.md` and, last, `table.json`, which the receipt names."""
    folder = table_folder(workspace, comparison.name, embedded)
    storage.write_bytes_atomic(storage.join(folder, "table.md"), comparison.to_markdown().encode())
    uri = storage.join(folder, "table.json")
    storage.write_bytes_atomic(uri, comparison.to_json())
    ran = sum(line.ours is not None for line in comparison.lines)
    return TableReceipt.of(uri, numbers=len(comparison.lines), measured=ran)


def write_all(workspace: Workspace, comparisons: Sequence[Comparison], embedded: bool) -> TableReceipt:
    """Write every table into one file, which the receipt names."""
    uri = storage.join(tables_folder(workspace, embedded), ALL)
    parts = ["# The paper's tables, reproduced\n", *(comparison.to_markdown(level=2) for comparison in comparisons)]
    storage.write_bytes_atomic(uri, "\n".join(parts).encode())
    lines = [line for comparison in comparisons for line in comparison.lines]
    ran = sum(line.ours is not None for line in lines)
    return TableReceipt.of(uri, tables=len(comparisons), numbers=len(lines), measured=ran)


def _setting(recipe: Recipe, embedded: bool, trained: bool) -> str:
    tokenizer, transformer = recipe.tokenizer_training.optim.steps, recipe.training.optim.steps
    steps = f"{tokenizer:,} tokenizer and {transformer:,} transformer steps" if trained else "nothing was trained"
    if not embedded:
        return f"The recipes' own size and data, {steps}."
    return f"Embedded benchmark: synthetic hands, reduced width, {steps}. The gap to the paper means nothing here."


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Seeds {seeds[0]} to {seeds[-1]}: mean ± standard deviation; a row minus its base seed by seed."


def _remarks(entry: RowPlan) -> tuple[str, ...]:
    if entry.row.measure == "text":
        text = entry.recipe.model.text
        how = (
            "CLIP's, frozen" if text.encoder == "clip" else f"{text.encoder}, {text.width} wide, trained with the model"
        )
        place = ("rendered letters, their rendered hands in the place of predictions",) if entry.embedded else ()
        return (f"text encoder: {how}", *place)
    if entry.embedded and entry.sets:
        joints = "; all joints, for synthetic hands have no labels of hidden ones" if entry.row.joints != "all" else ""
        return (f"synthetic hands in the place of every benchmark{joints}",)
    return ()
