"""The plan of `maskhand reproduce-table`: each row and seed, on which data, and what this machine lacks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskhand import storage
from maskhand.assets import CLIP_FILE, CLIP_VOCABULARY_FILE, VITPOSE_FILE
from maskhand.config import Recipe
from maskhand.device import gpu_count
from maskhand.digest import short_digest
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.paper import tables
from maskhand.paper.requirements import missing, wants_backbone
from maskhand.paper.tables import PaperRow, TableName
from maskhand.progress import Progress
from maskhand.shards.layout import IMAGES, MANO, keypoint_part
from maskhand.shards.manifest import find_manifest
from maskhand.steps import annotation, data, step_inputs, synthetic
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class RowPlan:
    """One row with one seed on this machine."""

    table: TableName
    row: PaperRow
    embedded: bool
    """Small, on the synthetic data."""
    recipe: Recipe
    source: str
    """Name of the recipe that `changes` override."""
    seed_offset: int
    """What `changes` add to the recipe's own seed."""
    changes: tuple[str, ...]
    sets: dict[str, str]
    """Benchmark -> shard set that is measured; no entry where nothing is read."""
    missing: dict[str, tuple[str, ...]]
    """Benchmark -> what it lacks, a sentence each; no entry where it can run."""
    timed_iterations: tuple[int, ...] = ()
    """Of a row that is timed: the numbers of iterations of its table's rows, which take turns."""

    @property
    def runs(self) -> list[str]:
        """Benchmarks that can run."""
        return [name for name in self.row.paper if name not in self.missing]


def prepare(
    workspace: Workspace, table: TableName, embedded: bool, overrides: Sequence[str], progress: Progress
) -> None:
    """Make what an embedded table reads beside the quickstart's data, before it is planned; nothing without that data.

    Letters for text to mesh; keypoints of training images, which the quickstart simulates; masked hands, with keypoints
    detected after masking.
    """
    source = tables.embedded().set
    if not embedded or find_manifest(workspace.shard_set(source), IMAGES) is None:
        return
    table_rows = tables.paper_table(table).rows
    if any(row.measure == "text" for row in table_rows):
        letters = [workspace.shard_set(f"{synthetic.LETTERS}/{split}") for split in synthetic.LETTER_SPLITS]
        if any(find_manifest(uri, MANO) is None for uri in letters):
            synthetic.alphabet(workspace, synthetic.PER_LETTER, 0, progress)
    recipes = {
        row.id: tables.row_recipe(row, True, tables.row_overrides(row, True, None, overrides)) for row in table_rows
    }
    wanted = {
        (name, recipes[row.id].data.keypoints.detector)
        for row in table_rows
        if row.trains and row.measure != "tokenizer" and recipes[row.id].data.keypoints.trains_on_detections
        for name in recipes[row.id].data.train
    }
    undetected = [(name, detector) for name, detector in sorted(wanted) if _lacks_keypoints(workspace, name, detector)]
    masked = [row for row in table_rows if row.mask]
    if not masked and not undetected:
        return
    from maskhand.cluster.session import ray_session  # Ray takes seconds to import

    with ray_session():
        for name, detector in undetected:
            annotation.annotate_keypoints(workspace, name, detector, progress)
        for row in masked:
            data.mask(workspace, source, row.mask, 0, progress, rebuild=True)
            derived = tables.measured_set(row, source)
            detector = recipes[row.id].data.keypoints.detector
            annotation.annotate_keypoints(workspace, derived, detector, progress, rebuild=True)


def _lacks_keypoints(workspace: Workspace, name: str, detector: str) -> bool:
    uri = workspace.shard_set(name)
    return find_manifest(uri, IMAGES) is not None and find_manifest(uri, keypoint_part(detector)) is None


def plans(
    workspace: Workspace,
    table: TableName,
    embedded: bool,
    budget_steps: int | None,
    overrides: Sequence[str],
    seeds: int = 1,
) -> list[RowPlan]:
    """A plan for each row of a table and each seed, seed by seed; TableError when there is no such table.

    embedded: small, on the synthetic data; budget_steps: of each training; overrides: of every row's recipe; seeds: how
    many, from the recipe's own upwards. Another seed is another tokenizer too, which the rows of that seed share.
    """
    rows = tables.paper_table(table).rows
    return [
        plan(workspace, table, row, embedded, budget_steps, overrides, offset)
        for offset in range(seeds)
        for row in rows
    ]


def plan(
    workspace: Workspace,
    table: TableName,
    row: PaperRow,
    embedded: bool,
    budget_steps: int | None,
    overrides: Sequence[str],
    seed_offset: int = 0,
) -> RowPlan:
    """What running a row here means, and what it lacks."""
    changes = tuple(tables.row_overrides(row, embedded, budget_steps, overrides))
    recipe = tables.row_recipe(row, embedded, changes)
    checkpoint, clip, vocabulary = (workspace.assets / name for name in (VITPOSE_FILE, CLIP_FILE, CLIP_VOCABULARY_FILE))
    if not embedded and recipe.model.condition == "text":
        if recipe.model.text.checkpoint is None and clip.is_file() and vocabulary.is_file():
            changes = (*changes, f"model.text.checkpoint={clip}", f"model.text.vocabulary={vocabulary}")
    elif not embedded and wants_backbone(recipe) and checkpoint.is_file():
        changes = (*changes, f"model.backbone.checkpoint={checkpoint}")
    if seed_offset:
        changes = (*changes, f"seed={recipe.seed + seed_offset}")
    recipe = tables.row_recipe(row, embedded, changes)
    whole = {name: found for name in row.paper if (found := tables.row_set(row, name, embedded)) is not None}
    timed = [o for o in tables.paper_table(table).rows if o.measure == row.measure == "seconds"]
    in_turn = [
        tables.row_recipe(o, embedded, tables.row_overrides(o, embedded, budget_steps, overrides)) for o in timed
    ]
    gpus = gpu_count()
    lacks = {
        name: tuple(missing(row, recipe, [whole[name]] if name in whole else [], workspace, not embedded, gpus))
        for name in row.paper
    }
    if row.measure == "pca":
        lacks = {name: (*sentences, *_missing_spread()) for name, sentences in lacks.items()}
    return RowPlan(
        table=table,
        row=row,
        embedded=embedded,
        recipe=recipe,
        source=row.source(embedded),
        seed_offset=seed_offset,
        changes=changes,
        sets={name: tables.measured_set(row, whole_set) for name, whole_set in whole.items()},
        missing={name: sentences for name, sentences in lacks.items() if sentences},
        timed_iterations=tuple(sorted({o.sampler.iterations for o in in_turn})),
    )


def _missing_spread() -> list[str]:
    """What the hand model lacks for random PCA hands."""
    from maskhand.paper.measures.generation import NO_SPREAD  # PyTorch, which most plans do without

    path = default_hand_path("right")
    return [NO_SPREAD.format(file=path)] if load_hand_model(path).hands_std is None else []


def digests(workspace: Workspace, wanted: RowPlan) -> dict[str, str]:
    """Everything that decides a row's numbers, its own text included: the key under which a flow caches it."""
    measured = (wanted.row.measure, tables.paper_table(wanted.table).metrics_of(wanted.row), wanted.runs, wanted.sets)
    text = repr((*measured, tables.embedded().generated))
    found = {"recipe": wanted.recipe.digest(), "row": short_digest(text)}
    if wanted.row.trains:
        found |= step_inputs.training_digests(workspace, "tokenizer", wanted.recipe)
        if wanted.row.measure != "tokenizer":
            found |= step_inputs.training_digests(workspace, "transformer", wanted.recipe)
    if wanted.row.measure == "pca":
        found["hand"] = load_hand_model(default_hand_path("right")).digest
    for name in wanted.sets.values():
        for part in (IMAGES, MANO, keypoint_part(wanted.recipe.data.keypoints.detector)):
            manifest = find_manifest(workspace.shard_set(name), part)
            if manifest is not None:
                found[f"{name}/{part}"] = manifest.digest
    return found


def table_folder(workspace: Workspace, table: TableName, embedded: bool) -> str:
    """Where the results of a table's rows and the table itself are kept."""
    name = f"table-{table:02d}" if isinstance(table, int) else str(table)
    return storage.join(tables_folder(workspace, embedded), name)


def tables_folder(workspace: Workspace, embedded: bool) -> str:
    return storage.join(str(workspace.reports), "tables", "embedded" if embedded else "full")
