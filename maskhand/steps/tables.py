"""The steps of `maskhand reproduce-table`: which rows can run here, running one, and the table of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskhand import storage
from maskhand.progress import Progress
from maskhand.steps import train
from maskhand.steps.data import training_digests
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.config import Recipe
    from maskhand.tables.comparison import Comparison
    from maskhand.tables.rows import PaperRow

GENERATED = 2000
"""Hands of the unconditional generation (supplement G)."""


@dataclass(frozen=True)
class RowPlan:
    """One row on this machine."""

    row: PaperRow
    recipe: Recipe
    changes: tuple[str, ...]
    """Overrides of the row's recipe."""
    sets: dict[str, str]
    """Benchmark -> shard set that is measured; no entry where nothing is read."""
    missing: dict[str, tuple[str, ...]]
    """Benchmark -> what it lacks, a sentence each; no entry where it can run."""

    @property
    def runs(self) -> list[str]:
        """Benchmarks that can run."""
        return [name for name in self.row.paper if name not in self.missing]


def prepare(workspace: Workspace, table: int, embedded: bool, progress: Progress) -> None:
    """Make what a table's embedded benchmark reads beside the quickstart's data: the letters of text to mesh."""
    from maskhand.shards.manifest import find_manifest
    from maskhand.steps.data import LETTER_SPLITS, LETTERS, MANO, PER_LETTER, alphabet
    from maskhand.tables.rows import paper_table

    wanted = embedded and any(row.measure == "text" for row in paper_table(table).rows)
    uris = [workspace.shard_set(f"{LETTERS}/{split}") for split in LETTER_SPLITS]
    if wanted and any(find_manifest(uri, MANO) is None for uri in uris):
        alphabet(workspace, PER_LETTER, 0, progress)


def plans(
    workspace: Workspace, table: int, embedded: bool, budget_steps: int | None, overrides: Sequence[str]
) -> list[RowPlan]:
    """A plan for each row of a table of the paper; TableError when there is none of that number.

    embedded: small, on the synthetic data; budget_steps: of each training; overrides: of every row's recipe.
    """
    from maskhand.tables.rows import paper_table

    return [plan(workspace, row, embedded, budget_steps, overrides) for row in paper_table(table).rows]


def plan(
    workspace: Workspace, row: PaperRow, embedded: bool, budget_steps: int | None, overrides: Sequence[str]
) -> RowPlan:
    """What running a row here means, and what it lacks."""
    from maskhand.assets import CLIP_FILE, CLIP_VOCABULARY_FILE, VITPOSE_FILE
    from maskhand.evaluation.speed import gpu_count
    from maskhand.tables import rows
    from maskhand.tables.needs import missing

    changes = tuple(rows.row_overrides(row, embedded, budget_steps, overrides))
    recipe = rows.row_recipe(row, changes)
    checkpoint, clip = workspace.assets / VITPOSE_FILE, workspace.assets / CLIP_FILE
    vocabulary = workspace.assets / CLIP_VOCABULARY_FILE
    if not embedded and recipe.model.condition == "text":
        if recipe.model.text.checkpoint is None and clip.is_file() and vocabulary.is_file():
            changes = (*changes, f"model.text.checkpoint={clip}", f"model.text.vocabulary={vocabulary}")
    elif not embedded and recipe.model.backbone.checkpoint is None and checkpoint.is_file():
        changes = (*changes, f"model.backbone.checkpoint={checkpoint}")
    recipe = rows.row_recipe(row, changes)
    known = rows.catalogue().benchmarks
    sets = {
        name: (known[name].embedded or rows.embedded().set) if embedded else known[name].set.format(joints=row.joints)
        for name in row.paper
        if name in known
    }
    gpus = gpu_count()
    lacks = {
        name: tuple(missing(row, recipe, [sets[name]] if name in sets else [], workspace, not embedded, gpus))
        for name in row.paper
    }
    return RowPlan(row, recipe, changes, sets, {name: sentences for name, sentences in lacks.items() if sentences})


def digests(workspace: Workspace, wanted: RowPlan) -> dict[str, str]:
    """Everything outside the recipe that decides a row's numbers: part of the key under which a flow caches it."""
    from maskhand.shards.manifest import find_manifest

    found = training_digests(workspace, wanted.row.recipe, wanted.changes) if wanted.row.trains else {}
    for name in wanted.sets.values():
        for part in ("images", "mano", f"keypoints.{wanted.recipe.data.keypoints.detector}"):
            manifest = find_manifest(workspace.shard_set(name), part)
            if manifest is not None:
                found[f"{name}/{part}"] = manifest.digest
    return found


def run_row(workspace: Workspace, table: int, wanted: RowPlan, embedded: bool, progress: Progress) -> Receipt:
    """Train what the row trains (or find it trained) and measure its benchmarks; the receipt names `ROW.json`."""
    from maskhand.evaluation.speed import device_name

    row = wanted.row
    model = _trained(workspace, wanted, progress) if row.trains else None
    measured: dict[str, dict[str, float]] = {}
    for name in wanted.runs:
        twin = next((done for done in measured if wanted.sets.get(done) == wanted.sets.get(name)), None)
        measured[name] = measured[twin] if twin else _measure(workspace, wanted, name, model, embedded, progress)
    uri = storage.join(_folder(workspace, table, embedded), f"{row.id.replace(' ', '_').replace('=', '')}.json")
    facts = {
        "row": row.id,
        "recipe": row.recipe,
        "overrides": list(wanted.changes),
        "model": model,
        "device": device_name(),
        "measured": measured,
    }
    storage.write_bytes_atomic(uri, (json.dumps(facts, indent=1) + "\n").encode())
    return Receipt.of(uri, benchmarks=len(measured))


def compare(table: int, wanted: Sequence[RowPlan], done: Sequence[Receipt]) -> Comparison:
    """The paper's table beside ours, from the receipts of the rows that ran."""
    from maskhand.tables.comparison import Comparison, lines_of
    from maskhand.tables.rows import paper_table

    paper = paper_table(table)
    results = [json.loads(storage.read_bytes(receipt.uri)) for receipt in done]
    measured = {result["row"]: result["measured"] for result in results}
    small = any(entry.recipe.name == "embedded" for entry in wanted)
    lines = [
        line
        for entry in wanted
        for line in lines_of(paper, entry.row, measured.get(entry.row.id, {}), entry.missing, _remarks(entry, small))
    ]
    devices = ", ".join(sorted({result["device"] for result in results})) or "nothing ran"
    return Comparison(table, paper.title, f"{_setting(wanted[0].recipe, small)} Ran on: {devices}.", tuple(lines))


def write(workspace: Workspace, comparison: Comparison, embedded: bool) -> Receipt:
    """Write `table.md` and, last, `table.json`, which the receipt names."""
    folder = _folder(workspace, comparison.number, embedded)
    storage.write_bytes_atomic(storage.join(folder, "table.md"), comparison.to_markdown().encode())
    uri = storage.join(folder, "table.json")
    storage.write_bytes_atomic(uri, comparison.to_json())
    ran = sum(line.ours is not None for line in comparison.lines)
    return Receipt.of(uri, numbers=len(comparison.lines), reproduced=ran)


def _folder(workspace: Workspace, table: int, embedded: bool) -> str:
    return storage.join(str(workspace.reports), "tables", "embedded" if embedded else "full", f"table-{table:02d}")


def _trained(workspace: Workspace, wanted: RowPlan, progress: Progress) -> str:
    """Folder of the row's trained model or tokenizer; trainings of the same identity are made once."""
    recipe, changes = wanted.row.recipe, wanted.changes
    tokenizer = train.train_tokenizer(workspace, recipe, changes, "", progress)
    if wanted.row.measure == "tokenizer":
        return tokenizer.folder
    return train.train_transformer(workspace, recipe, changes, tokenizer.folder, "", progress).folder


def _measure(
    workspace: Workspace, wanted: RowPlan, benchmark: str, model: str | None, embedded: bool, progress: Progress
) -> dict[str, float]:
    from maskhand.tables.rows import embedded as shrunk

    row, recipe = wanted.row, wanted.recipe
    set_uri = workspace.shard_set(wanted.sets[benchmark]) if benchmark in wanted.sets else ""
    count = shrunk().generated if embedded else GENERATED
    if row.measure == "seconds":
        from maskhand.evaluation.speed import seconds_per_picture

        return {"seconds_per_picture": seconds_per_picture(recipe)}
    if row.measure == "pca":
        from maskhand.evaluation.generated import pca_hands
        from maskhand.hand.model_file import default_hand_path, load_hand_model

        return pca_hands(load_hand_model(default_hand_path("right")), count, recipe.seed)
    assert model is not None, "every other measure trains"
    if row.measure == "tokenizer":
        return _reconstruction(set_uri, model, recipe)
    return _of_bundle(row, recipe, model, set_uri, wanted.sets.get(benchmark, ""), count, progress)


def _reconstruction(set_uri: str, model: str, recipe: Recipe) -> dict[str, float]:
    from maskhand.evaluation.reconstruction import reconstruction_errors
    from maskhand.evaluation.speed import device
    from maskhand.hand.layer import ManoLayer
    from maskhand.loading.poses import read_mano_poses
    from maskhand.training.checkpoint import load_tokenizer

    place, mano = device(), ManoLayer.from_default()
    tokenizer = load_tokenizer(model, recipe.tokenizer)
    return reconstruction_errors(tokenizer.to(place), mano.to(place), read_mano_poses(set_uri))


def _of_bundle(
    row: PaperRow, recipe: Recipe, model: str, set_uri: str, set_name: str, count: int, progress: Progress
) -> dict[str, float]:
    from maskhand.catalog import load_spec
    from maskhand.evaluation import generated, keypoints_2d, runner, text_to_mesh
    from maskhand.evaluation.speed import device
    from maskhand.models.bundle import ModelBundle
    from maskhand.models.masked_transformer import MaskedTransformer

    bundle = ModelBundle.load(model, device=device())
    if row.measure == "generation":
        assert isinstance(bundle.model, MaskedTransformer), "the recipe of the generation row has tokens"
        return generated.generated_hands(bundle.model, count, recipe.sampler, recipe.seed)
    if row.measure == "text":
        assert isinstance(bundle.model, MaskedTransformer), "text rows generate"
        called = text_to_mesh.generated_by_caption(bundle.model, recipe, set_uri, progress)
        return text_to_mesh.text_to_mesh(called)
    if row.measure == "pck":
        return keypoints_2d.model_pck(bundle.model, recipe, set_uri, row.mask, progress)
    spec = load_spec(set_name.partition("/")[0])
    iterations = [recipe.sampler.iterations]
    result = runner.evaluate(bundle, set_uri, recipe, iterations=iterations, tips=spec.tips, progress=progress)
    return dict(result.best.metrics)


def _setting(recipe: Recipe, small: bool) -> str:
    steps = f"{recipe.tokenizer_training.optim.steps:,} tokenizer and {recipe.training.optim.steps:,} transformer steps"
    if not small:
        return f"The recipes' own size and data, {steps}."
    return f"Embedded benchmark: synthetic hands, reduced width, {steps}. The gap to the paper means nothing here."


def _remarks(entry: RowPlan, small: bool) -> tuple[str, ...]:
    if entry.row.measure == "text":
        text = entry.recipe.model.text
        how = (
            "CLIP's, frozen" if text.encoder == "clip" else f"{text.encoder}, {text.width} wide, trained with the model"
        )
        place = ("rendered letters, their rendered hands in the place of predictions",) if small else ()
        return (f"text encoder: {how}", *place)
    if small:
        joints = "; all joints, the synthetic hands do not say which are hidden" if entry.row.joints != "all" else ""
        return (f"synthetic hands in the place of every benchmark{joints}",) if entry.sets else ()
    return ()
