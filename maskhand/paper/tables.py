"""The tables of the paper as records, read from the YAML files beside this module; the cards know their benchmarks."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from maskhand.config import Recipe
from maskhand.errors import MaskhandError
from maskhand.recipe_files import load_recipe
from maskhand.scoring.benchmarks import benchmark_sets
from maskhand.shards.masked import Masking, masked_set

FOLDER = Path(__file__).parent

TableName = int | str
"""A number of the paper's, or one of OUR_TABLES."""
CLAIMS, CHOICES, HYPOTHESES, ADDITIONS = OUR_TABLES = "claims", "choices", "hypotheses", "additions"
Joints = Literal["all", "vis", "occ"]
Measure = Literal["hands", "pck", "tokenizer", "seconds", "generation", "pca", "text", "hypotheses"]


class TableError(MaskhandError, ValueError):
    """A table or row that does not exist."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperRow(_Frozen):
    """One row of one table, and how to run it."""

    id: str
    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    measure: Measure = "hands"
    metrics: tuple[str, ...] = ()
    """Where they differ from the table's."""
    paper: dict[str, tuple[float | None, ...]]
    """Benchmark, as the cards name it, -> the paper's values, in the order of the metrics."""
    joints: Joints = "all"
    mask: float = Field(0.0, ge=0, lt=1)
    """Share of every hand that is hidden: its benchmarks are the sets that `maskhand mask` derives."""
    protocol: str = ""
    small: str = ""
    """Recipe that takes the place of `recipe` in embedded runs and is small as it is; else `recipe` is shrunk."""
    claim: str = ""
    """What the paper concludes from the base row's being better than this one."""

    @property
    def name(self) -> str:
        """For people: id and label."""
        return self.id if self.label in self.id else f"{self.id}: {self.label}"

    @property
    def trains(self) -> bool:
        return self.measure not in ("seconds", "pca")

    def source(self, shrink: bool) -> str:
        """The recipe that is trained; shrink: for an embedded run."""
        return self.small if shrink and self.small else self.recipe


class PaperTable(_Frozen):
    title: str
    metrics: tuple[str, ...]
    note: str = ""
    base: tuple[str, ...] = ()
    """Ids of the rows that others are compared with; a row is compared with the first that reports its benchmark."""
    rows: tuple[PaperRow, ...]

    def metrics_of(self, row: PaperRow) -> tuple[str, ...]:
        return row.metrics or self.metrics

    def row(self, row_id: str) -> PaperRow:
        found = next((row for row in self.rows if row.id == row_id), None)
        if found is None:
            raise TableError(f"no row {row_id!r} in {self.title!r}; its rows: {', '.join(r.id for r in self.rows)}")
        return found


class LaterResult(_Frozen):
    """What somebody else reached, beside or after the paper."""

    method: str
    source: str
    quoted: bool = False
    """Read in another text than its own paper."""
    joints: Joints | None = None
    """For PCK: of which joints."""
    values: dict[str, float]


class Embedded(_Frozen):
    """How a row shrinks onto the synthetic dataset."""

    set: str
    """Shard set that stands for every benchmark."""
    sets: dict[str, str]
    """Benchmark -> the one that stands for it instead."""
    steps: int
    generated: int
    divide: dict[str, int]
    overrides: tuple[str, ...]
    text: tuple[str, ...]
    """Further overrides of the rows that read text."""


@functools.cache
def paper_tables() -> dict[TableName, PaperTable]:
    """The paper's, by number, and those that the paper does not have, by name."""
    tables = _read("paper.yaml")["tables"] | {name: _read(f"{name}.yaml") for name in OUR_TABLES}
    return {name: PaperTable.model_validate(table) for name, table in tables.items()}


@functools.cache
def later_results() -> Mapping[str, tuple[LaterResult, ...]]:
    """Benchmark -> the state of the art beside and after the paper."""
    return {
        name: tuple(LaterResult.model_validate(entry) for entry in entries)
        for name, entries in _read("later.yaml").items()
    }


@functools.cache
def embedded() -> Embedded:
    return Embedded.model_validate(_read("embedded.yaml"))


def paper_table(name: TableName) -> PaperTable:
    """A table of the paper, or one of ours; TableError when there is none of that name."""
    tables = paper_tables()
    if name not in tables:
        last = max(table for table in tables if isinstance(table, int))
        ours = ", ".join(map(repr, OUR_TABLES))
        raise TableError(
            f"there is no table {name!r}: the paper's are 1 to {last}, 'all' of them, and there are {ours}"
        )
    return tables[name]


def table_names(word: str) -> list[TableName]:
    """`2` -> [2], `claims` -> ["claims"], `all` -> the paper's; TableError for anything else."""
    if word == "all":
        return [name for name in paper_tables() if name not in OUR_TABLES]
    name: TableName = int(word) if word.isdecimal() else word
    paper_table(name)
    return [name]


def benchmark_title(benchmark: str) -> str:
    """As its card prints it; the word itself for what no card names, such as `time`."""
    known = benchmark_sets().get(benchmark)
    return known.benchmark.title if known else benchmark


def row_set(row: PaperRow, benchmark: str, shrink: bool) -> str | None:
    """The shard set that a benchmark of the row is measured on, before any masking; None where none is read.

    shrink: for an embedded run.
    """
    known = benchmark_sets().get(benchmark)
    if known is None:
        return None
    if shrink:
        return embedded().sets.get(benchmark, embedded().set)
    return known.shard_set if row.joints == "all" else known.subset(row.joints)


def measured_set(row: PaperRow, benchmark_set: str) -> str:
    """The set itself, or what is derived from it for a row of masked hands."""
    return masked_set(benchmark_set, Masking(row.mask)) if row.mask else benchmark_set


def row_overrides(
    row: PaperRow, shrink: bool, budget_steps: int | None = None, overrides: Sequence[str] = ()
) -> list[str]:
    """What is changed in the row's recipe: by the row, by the embedded benchmark, by a budget of steps, by the user.

    budget_steps: of each of the two trainings; schedules shrink with them.
    """
    changes = list(row.overrides)
    if not shrink:
        changes.append("name=paper")
    elif row.small:
        changes.append("name=embedded")
    else:
        small, full = embedded(), load_recipe(row.recipe, row.overrides).flat()
        changes += [f"{key}={max(1, int(full[key]) // by)}" for key, by in small.divide.items()]
        changes += [*small.overrides, *(small.text if row.measure == "text" else ())]
        budget_steps = budget_steps or small.steps
    if budget_steps is not None:
        warmup = min(50, budget_steps // 10)
        for part in ("tokenizer_training", "training"):
            changes += [f"{part}.optim.steps={budget_steps}", f"{part}.optim.warmup_steps={warmup}"]
            changes.append(f"{part}.optim.schedule=cosine")
    return [*changes, *overrides]


def row_recipe(row: PaperRow, shrink: bool, changes: Sequence[str]) -> Recipe:
    return load_recipe(row.source(shrink), changes)


def _read(name: str) -> dict[Any, Any]:
    return yaml.safe_load((FOLDER / name).read_text())
