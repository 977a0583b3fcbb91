"""The step that evaluates a model, and tables and pages of what it found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from maskhand import storage
from maskhand.catalog import load_spec
from maskhand.config import Recipe
from maskhand.device import accelerator
from maskhand.evaluation.page.build import Measurement, page
from maskhand.evaluation.report import evaluation_sheet, shown_hands, write_report
from maskhand.evaluation.result import EvaluationResult
from maskhand.evaluation.summary import SUBMISSION, SUMMARY, EvaluationSummary, SetSummary
from maskhand.metrics.titles import METRICS
from maskhand.models.bundle import ModelBundle
from maskhand.progress import Progress
from maskhand.recipe_files import override_inference
from maskhand.render import data_url
from maskhand.scoring.benchmarks import benchmark_named, benchmark_of
from maskhand.scoring.formats import load_format
from maskhand.scoring.predictions import Layout, SubmissionError
from maskhand.shards.layout import IMAGES, MANO, keypoint_part
from maskhand.shards.manifest import find_manifest, read_manifest
from maskhand.steps.evaluate_set import evaluate_set, training_mean_pose
from maskhand.steps.models import exported_recipe, lasting_name, model_folder
from maskhand.steps.names import BUNDLE_FILE
from maskhand.steps.receipt import Receipt, file_digest
from maskhand.workspace import Workspace

PAGE = "report.html"

COLUMNS = ("pa_mpjpe_mm", "pa_mpvpe_mm", "pa_f5", "pa_f15", "pa_auc_joints")
"""The metrics of the table for people."""


@dataclass(frozen=True)
class EvaluationReceipt(Receipt):
    """Names `evaluation.json`."""

    samples: int
    gain_over_mean_pose: float | None = None
    """How far the error on the first set is below the mean pose's, as a fraction of it."""
    no_submission: str = ""
    """Why the predictions of a set cannot be written in the official format."""


def input_digests(workspace: Workspace, model: str, sets: Sequence[str]) -> dict[str, str]:
    """Everything that decides an evaluation: the weights (an alias may mean others tomorrow), the data, their cards."""
    folder = model_folder(workspace, model)
    recipe = exported_recipe(folder)
    parts = [(name, MANO) for name in recipe.data.train]  # the mean pose
    measured = _chosen_sets(recipe, sets)
    for name in measured:
        parts += [(name, part) for part in (IMAGES, MANO, keypoint_part(recipe.data.keypoints.detector))]
    found = {f"{name}/{part}": find_manifest(workspace.shard_set(name), part) for name, part in parts}
    digests = {name: manifest.digest for name, manifest in found.items() if manifest is not None}
    digests |= {f"card of {name}": load_spec(name.partition("/")[0]).digest() for name in measured}
    return digests | {"model": file_digest(storage.join(folder, BUNDLE_FILE))}


def benchmark_sets(workspace: Workspace, benchmark: str) -> list[str]:
    """The shard sets of a benchmark (`freihand`, `ho3d_v3`, `hint`, `synthetic`) that are there; ValueError if none."""
    meant = benchmark_named(benchmark)
    sets = [one.shard_set for one in meant]
    found = [name for name in sets if find_manifest(workspace.shard_set(name), IMAGES) is not None]
    if not found:
        raise ValueError(
            f"benchmark {benchmark!r}: no shards of {', '.join(sets)} in this workspace; "
            f"make them with `maskhand shard {meant[0].dataset.name} --raw DIR`"
        )
    return found


def evaluate(
    workspace: Workspace,
    model: str,
    sets: Sequence[str],
    progress: Progress,
    workers: int = 1,
    overrides: Sequence[str] = (),
) -> EvaluationReceipt:
    """Measure `model` on shard sets (none: its recipe's), beside the mean pose of its training sets if these are here.

    workers: Ray workers who share the batches, each with a GPU where Ray has some; one is this process. overrides:
    such as sampler.iterations=10, in place of what the model's own recipe says (ConfigError for other sections). The
    receipt names `evaluation.json`; beside it lies report.html, and each set has result.json, table.md,
    samples.parquet, sheet.png and, where its card names a benchmark, the predictions in the official format. Where
    these cannot be written the receipt's `no_submission` says why.
    """
    exported = model_folder(workspace, model)
    model = lasting_name(workspace, model)
    # several workers have their own accelerators
    bundle = ModelBundle.load(exported, device=accelerator() if workers == 1 else "cpu")
    bundle = bundle.with_settings(override_inference(bundle.recipe, overrides))
    baseline = training_mean_pose(workspace, bundle.recipe)
    recipe, sets = bundle.recipe, _chosen_sets(bundle.recipe, sets)
    # Other settings for the same model have a report of their own, and so has a model under another name.
    settings = {"model": model, "sets": sets, "evaluate": recipe.evaluate.model_dump(mode="json")}
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:6]
    folder = storage.join(workspace.reports, f"evaluation-{recipe.name}-{bundle.digest}-{key}")
    found: dict[str, SetSummary] = {}
    measured: list[Measurement] = []
    notes: list[str] = []
    for name in sets:
        result = evaluate_set(workspace, bundle, name, progress, baseline=baseline, workers=workers, folder=exported)
        home = storage.join(folder, name)
        hands = shown_hands(bundle, result)
        files = write_report(result, home, evaluation_sheet(result, hands))
        try:
            files |= _submission(workspace, name, result, home)
        except SubmissionError as error:
            notes.append(f"{name}: {error}")
        measured.append(Measurement(result, hands))
        found[name] = result.summary().model_copy(update={"files": files})
    page_uri = storage.join(folder, PAGE)
    faces = bundle.model.mano.faces.cpu().numpy()
    storage.write_bytes_atomic(page_uri, page(model, bundle.digest, measured, faces).encode())
    summary = EvaluationSummary(model=model, model_digest=bundle.digest, page=page_uri, sets=found)
    uri = storage.join(folder, SUMMARY)
    storage.write_bytes_atomic(uri, summary.to_json())
    gain = summary.first.gain_over_mean_pose
    return EvaluationReceipt.of(
        uri,
        samples=sum(one.count for one in found.values()),
        gain_over_mean_pose=None if gain is None else round(gain, 4),
        no_submission="; ".join(notes),
    )


def _chosen_sets(recipe: Recipe, sets: Sequence[str]) -> list[str]:
    """The given names, else the recipe's; ValueError for a path or address."""
    for name in sets:
        dataset, _, split = name.partition("/")
        if not (dataset and split) or ":" in dataset or "/" in split:
            raise ValueError(
                f"shard set {name!r}: expected DATASET/SPLIT, such as freihand_synth/evaluation; MASKHAND_SHARDS names "
                "the folder or s3:// place where the sets are"
            )
    return list(sets or recipe.data.evaluate)


def _submission(workspace: Workspace, name: str, result: EvaluationResult, folder: str) -> dict[str, str]:
    """URIs of the predictions in the benchmark's official format, by file; none where the set has no such format."""
    known = benchmark_of(name)
    if known is None or known.benchmark.format is None:
        return {}
    layout = Layout.of_card(known.dataset, read_manifest(workspace.shard_set(name), IMAGES).planned)
    written = load_format(known.benchmark.format).write(result.predictions, layout)
    files = {f"{SUBMISSION}{file}": data for file, data in written.items()}
    uris = {file: storage.join(folder, file) for file in files}
    for file, data in files.items():
        storage.write_bytes_atomic(uris[file], data)
    return uris


def table(receipt: Receipt) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of an evaluation, for people: a row per set and predictor."""
    rows = [
        [name, row.name, *(_cell(row.metrics[metric]) for metric in COLUMNS)]
        for name, result in EvaluationSummary.read(receipt.uri).sets.items()
        for row in result.rows
    ]
    return ["set", "predictor", *(METRICS[metric].column for metric in COLUMNS)], rows


def sheets(receipt: Receipt) -> dict[str, str]:
    """URIs of an evaluation's contact sheets, by set."""
    sets = EvaluationSummary.read(receipt.uri).sets
    return {name: result.files["sheet.png"] for name, result in sets.items() if result.files}


def of_model(receipt: Receipt) -> str:
    """The model that an evaluation measured, with the digest of its weights."""
    summary = EvaluationSummary.read(receipt.uri)
    return f"{summary.model} ({summary.model_digest})"


def page_uri(receipt: Receipt) -> str:
    """The evaluation's report, one HTML file that needs nothing else."""
    return EvaluationSummary.read(receipt.uri).page


def as_data_url(png_uri: str) -> str:
    """An image inside its own address, for pages that cannot reach our files."""
    return data_url(storage.read_bytes(png_uri), "png")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
