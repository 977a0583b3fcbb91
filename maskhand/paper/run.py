"""Running a row of `maskhand reproduce-table`: train what it trains, measure what its table reports.

Which rows can run is in `plan`, what is measured in `measures`, the table that comes of them in `results`.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskhand import storage
from maskhand.device import device_name
from maskhand.paper.measures import MEASURES
from maskhand.paper.measures.request import Request
from maskhand.paper.plan import RowPlan, table_folder
from maskhand.paper.tables import embedded, paper_table
from maskhand.progress import Progress
from maskhand.steps import train
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

GENERATED = 2000
"""Hands of the unconditional generation (supplement G)."""


@dataclass(frozen=True)
class RowReceipt(Receipt):
    """Names `ROW-seedN.json` of a table's row."""

    benchmarks: int


def run_row(workspace: Workspace, wanted: RowPlan, progress: Progress) -> RowReceipt:
    """Train what the row trains (or find it trained) and measure its benchmarks; the receipt names `ROW-seedN.json`."""
    row = wanted.row
    model = _trained(workspace, wanted, progress) if row.trains else None
    measured: dict[str, dict[str, float]] = {}
    for name in wanted.runs:
        twin = next((done for done in measured if wanted.sets.get(done) == wanted.sets.get(name)), None)
        if twin is not None:
            measured[name] = measured[twin]
            continue
        request = Request(
            workspace=workspace,
            recipe=wanted.recipe,
            metrics=paper_table(wanted.table).metrics_of(row),
            trained=model,
            shard_set=wanted.sets.get(name),
            generated=embedded().generated if wanted.embedded else GENERATED,
            timed_iterations=wanted.timed_iterations,
            progress=progress,
        )
        measured[name] = MEASURES[row.measure](request)
    name = f"{row.id.replace(' ', '_').replace('=', '')}-seed{wanted.recipe.seed}.json"
    uri = storage.join(table_folder(workspace, wanted.table, wanted.embedded), name)
    facts = {
        "row": row.id,
        "seed": wanted.recipe.seed,
        "recipe": wanted.source,
        "overrides": list(wanted.changes),
        "model": model,
        "device": device_name(),
        "measured": measured,
    }
    storage.write_json_atomic(uri, facts)
    return RowReceipt.of(uri, benchmarks=len(measured))


def _trained(workspace: Workspace, wanted: RowPlan, progress: Progress) -> str:
    """Folder of the row's trained model or tokenizer; trainings of the same identity are made once."""
    recipe, changes = wanted.source, wanted.changes
    if wanted.row.measure != "tokenizer":
        train.check_before_tokenizer(workspace, recipe, changes)
    tokenizer = wanted.recipe.tokenizer_training.checkpoint
    if tokenizer is None or wanted.row.measure == "tokenizer":
        tokenizer = train.train_tokenizer(workspace, recipe, changes, "", progress).folder
    if wanted.row.measure == "tokenizer":
        return tokenizer
    return train.train_transformer(workspace, recipe, changes, tokenizer, "", progress).folder
