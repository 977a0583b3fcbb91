"""Running a row of `maskhand reproduce-table`: train what it trains, measure what its table reports.

Which rows can run is in `table_plans`, the table that comes of them in `table_results`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from maskhand import storage
from maskhand.progress import Progress
from maskhand.steps import train
from maskhand.steps.measure import load_model, measure_set, training_mean_pose
from maskhand.steps.receipt import Receipt
from maskhand.steps.table_plans import RowPlan, table_folder
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.config import Recipe

GENERATED = 2000
"""Hands of the unconditional generation (supplement G)."""
AT_ITERATIONS = re.compile(r"T(\d+)/")
"""Beginning of a metric that is not measured at the recipe's own number of iterations."""
BELOW_MEAN_POSE = "below_mean_pose_percent"
"""How much smaller PA-MPJPE is than that of always the mean training hand."""


def run_row(workspace: Workspace, wanted: RowPlan, progress: Progress) -> Receipt:
    """Train what the row trains (or find it trained) and measure its benchmarks; the receipt names `ROW-seedN.json`."""
    from maskhand.device import device_name

    row = wanted.row
    model = _trained(workspace, wanted, progress) if row.trains else None
    measured: dict[str, dict[str, float]] = {}
    for name in wanted.runs:
        twin = next((done for done in measured if wanted.sets.get(done) == wanted.sets.get(name)), None)
        measured[name] = measured[twin] if twin else _measure(workspace, wanted, name, model, progress)
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
    storage.write_bytes_atomic(uri, (json.dumps(facts, indent=1) + "\n").encode())
    return Receipt.of(uri, benchmarks=len(measured))


def _trained(workspace: Workspace, wanted: RowPlan, progress: Progress) -> str:
    """Folder of the row's trained model or tokenizer; trainings of the same identity are made once."""
    recipe, changes = wanted.source, wanted.changes
    if wanted.row.measure != "tokenizer":
        train.check_before_tokenizer(workspace, recipe, changes)
    tokenizer = train.train_tokenizer(workspace, recipe, changes, "", progress)
    if wanted.row.measure == "tokenizer":
        return tokenizer.folder
    return train.train_transformer(workspace, recipe, changes, tokenizer.folder, "", progress).folder


def _measure(
    workspace: Workspace, wanted: RowPlan, benchmark: str, model: str | None, progress: Progress
) -> dict[str, float]:
    from maskhand.tables.rows import embedded as shrunk

    row, recipe = wanted.row, wanted.recipe
    set_uri = workspace.shard_set(wanted.sets[benchmark]) if benchmark in wanted.sets else ""
    count = shrunk().generated if wanted.embedded else GENERATED
    if row.measure == "seconds":
        from maskhand.evaluation.speed import seconds_per_image

        seconds = seconds_per_image(recipe, wanted.timed_iterations, progress)
        return {"seconds_per_image": seconds[recipe.sampler.iterations]}
    if row.measure == "pca":
        from maskhand.evaluation.generated import pca_hands
        from maskhand.hand.model_file import default_hand_path, load_hand_model

        return pca_hands(load_hand_model(default_hand_path("right")), count, recipe.seed)
    assert model is not None, "every other measure trains"
    if row.measure == "tokenizer":
        return _reconstruction(set_uri, model, recipe)
    if row.measure == "generation":
        return _generation(model, recipe, count)
    if row.measure == "text":
        return _text(model, recipe, set_uri, progress)
    if row.measure == "hypotheses":
        return _hypotheses(model, recipe, wanted.sets[benchmark], set_uri, progress)
    return _hands(workspace, wanted, benchmark, model, progress)


def _reconstruction(set_uri: str, model: str, recipe: Recipe) -> dict[str, float]:
    from maskhand.device import accelerator
    from maskhand.evaluation.reconstruction import reconstruction_errors
    from maskhand.hand.layer import ManoLayer
    from maskhand.loading.poses import read_mano_poses
    from maskhand.training.checkpoint import load_tokenizer

    place, mano = accelerator(), ManoLayer.from_default()
    tokenizer = load_tokenizer(model, recipe.tokenizer)
    return reconstruction_errors(tokenizer.to(place), mano.to(place), read_mano_poses(set_uri))


def _generation(model: str, recipe: Recipe, count: int) -> dict[str, float]:
    from maskhand.evaluation.generated import generated_hands
    from maskhand.models.masked_transformer import MaskedTransformer

    network = load_model(model).model
    assert isinstance(network, MaskedTransformer), "the recipe of the generation row has tokens"
    return generated_hands(network, count, recipe.sampler, recipe.seed)


def _text(model: str, recipe: Recipe, set_uri: str, progress: Progress) -> dict[str, float]:
    from maskhand.evaluation.text_to_mesh import generated_by_caption, text_to_mesh
    from maskhand.models.masked_transformer import MaskedTransformer

    network = load_model(model).model
    assert isinstance(network, MaskedTransformer), "text rows generate"
    return text_to_mesh(generated_by_caption(network, recipe, set_uri, progress))


def _hypotheses(model: str, recipe: Recipe, set_name: str, set_uri: str, progress: Progress) -> dict[str, float]:
    from maskhand.catalog import load_spec
    from maskhand.evaluation.hypotheses import hypothesis_errors
    from maskhand.models.masked_transformer import MaskedTransformer

    network = load_model(model).model
    assert isinstance(network, MaskedTransformer), "the recipe of the row has tokens"
    return hypothesis_errors(network, recipe, set_uri, load_spec(set_name.partition("/")[0]).fingertips, progress)


def _hands(workspace: Workspace, wanted: RowPlan, benchmark: str, model: str, progress: Progress) -> dict[str, float]:
    """The numbers of `maskhand evaluate`; PCK in percent; `T1/...` are those of another number of iterations."""
    from maskhand.models.estimators import predictor
    from maskhand.tables.rows import paper_table

    recipe = wanted.recipe
    metrics = paper_table(wanted.table).metrics_of(wanted.row)
    others = {int(found[1]) for metric in metrics if (found := AT_ITERATIONS.match(metric))}
    samplers = {t: recipe.sampler.model_copy(update={"iterations": t}) for t in others}
    result = measure_set(
        workspace,
        load_model(model),
        wanted.sets[benchmark],
        progress,
        baseline=training_mean_pose(workspace, recipe) if BELOW_MEAN_POSE in metrics else None,
        recipe=recipe,
        samplers=[*samplers.values(), recipe.sampler],
    )
    mine = _in_percent(result.best.metrics)
    for iterations, sampler in samplers.items():
        there = result.row(predictor(recipe, sampler).name).metrics
        mine |= {f"T{iterations}/{metric}": value for metric, value in _in_percent(there).items()}
    if result.baseline is not None:
        mine[BELOW_MEAN_POSE] = 100 * (1 - mine["pa_mpjpe_mm"] / result.baseline.metrics["pa_mpjpe_mm"])
    return mine


def _in_percent(metrics: Mapping[str, float]) -> dict[str, float]:
    """PCK as papers print it."""
    return {name: 100 * value if name.startswith("pck") else value for name, value in metrics.items()}
