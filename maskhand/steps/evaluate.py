"""The step that measures a model, and what people read of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maskhand import storage
from maskhand.progress import Progress
from maskhand.recipe_files import override_inference, parse_recipe
from maskhand.shards.layout import IMAGES, MANO, keypoint_part
from maskhand.steps.measure import load_model, measure_set, training_mean_pose
from maskhand.steps.receipt import Receipt
from maskhand.steps.train import BUNDLE_FILE
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.config import Recipe
    from maskhand.evaluation.result import EvaluationResult

SUMMARY = "evaluation.json"
"""Written last into the folder of an evaluation: the model and, per set, `result.json` with its neighbors."""

PAGE = "report.html"
SUBMISSION = "submission/"

COLUMNS = {
    "pa_mpjpe_mm": "PA-MPJPE mm",
    "pa_mpvpe_mm": "PA-MPVPE mm",
    "pa_f5": "F@5",
    "pa_f15": "F@15",
    "pa_auc_joints": "AUC",
}


def model_folder(workspace: Workspace, model: str, training: str = "train-maskhand") -> str:
    """The exported folder of a model: a path as it is, `models:/NAME@ALIAS` fetched from the registry.

    training: what `maskhand run` is told to make one of this kind, for the LookupError where there is none.
    """
    if not model.startswith("models:/"):
        return model
    from maskhand.tracking import Tracker

    try:
        return str(Tracker.of(workspace).bundle_folder(model))
    except LookupError as error:
        trained = sorted(workspace.runs.glob(f"transformer-*/export*/{BUNDLE_FILE}"), key=lambda p: p.stat().st_mtime)
        newest = f". The newest training here can be asked with --model {trained[-1].parent}" if trained else ""
        raise LookupError(
            f"{error}. `maskhand run {training}` trains one, measures it and registers it{newest}"
        ) from None


def lasting_name(workspace: Workspace, model: str) -> str:
    """A name that means the same model tomorrow: the version in place of an alias, a path as it is."""
    if "@" not in model or not model.startswith("models:/"):
        return model
    from maskhand.tracking import Tracker

    return Tracker.of(workspace).resolve(model).uri


def exported_recipe(folder: str) -> Recipe:
    """The recipe of an exported model."""
    uri = storage.join(folder, "recipe.json")
    return parse_recipe(json.loads(storage.read_bytes(uri)), uri)


def input_digests(workspace: Workspace, model: str, sets: Sequence[str]) -> dict[str, str]:
    """Everything that decides an evaluation: the weights (an alias may mean others tomorrow), the data, their cards."""
    from maskhand.catalog import load_spec
    from maskhand.shards.manifest import find_manifest

    folder = model_folder(workspace, model)
    recipe = exported_recipe(folder)
    parts = [(name, MANO) for name in recipe.data.train]  # the mean pose
    measured = _asked_sets(recipe, sets)
    for name in measured:
        parts += [(name, part) for part in (IMAGES, MANO, keypoint_part(recipe.data.keypoints.detector))]
    found = {f"{name}/{part}": find_manifest(workspace.shard_set(name), part) for name, part in parts}
    digests = {name: manifest.digest for name, manifest in found.items() if manifest is not None}
    digests |= {f"card of {name}": load_spec(name.partition("/")[0]).digest() for name in measured}
    return digests | {"model": Receipt.of(storage.join(folder, BUNDLE_FILE)).digest}


def benchmark_sets(workspace: Workspace, benchmark: str) -> list[str]:
    """The shard sets of a benchmark (`freihand`, `ho3d_v3`, `hint`, `synthetic`) that are there; ValueError if none."""
    from maskhand.catalog import benchmarks
    from maskhand.shards.manifest import find_manifest

    known = benchmarks()
    if benchmark not in known:
        raise ValueError(f"benchmark {benchmark!r} not known; known are {', '.join(sorted(known))}")
    splits = {spec.name: spec.benchmark.splits for spec in known[benchmark] if spec.benchmark}
    sets = [f"{name}/{split}" for name, of_set in splits.items() for split in of_set]
    found = [name for name in sets if find_manifest(workspace.shard_set(name), IMAGES) is not None]
    if not found:
        raise ValueError(
            f"benchmark {benchmark!r}: no shards of {', '.join(sets)} in this workspace; "
            f"make them with `maskhand shard {next(iter(splits))} --raw DIR`"
        )
    return found


def evaluate(
    workspace: Workspace,
    model: str,
    sets: Sequence[str],
    progress: Progress,
    workers: int = 1,
    overrides: Sequence[str] = (),
) -> Receipt:
    """Measure `model` on shard sets (none: its recipe's), beside the mean pose of its training sets if these are here.

    workers: Ray workers who share the batches, each with a GPU where Ray has some; one is this process. overrides:
    such as sampler.iterations=10, in place of what the model's own recipe says (ConfigError for other sections). The
    receipt names `evaluation.json`; beside it lies report.html, and each set has result.json, table.md,
    samples.parquet, sheet.png and, where its card names a benchmark, the predictions in the official format. Where
    these cannot be written the receipt's `no_submission` says why.
    """
    from maskhand.evaluation.page.build import Measurement, page
    from maskhand.evaluation.report import evaluation_sheet, shown_hands, write_report
    from maskhand.evaluation.submission import SubmissionError

    exported = model_folder(workspace, model)
    model = lasting_name(workspace, model)
    bundle = load_model(exported, workers)
    bundle = replace(bundle, recipe=override_inference(bundle.recipe, overrides))
    baseline = training_mean_pose(workspace, bundle.recipe)
    recipe, sets = bundle.recipe, _asked_sets(bundle.recipe, sets)
    # Another question about the same model has a report of its own, and so has a model under another name.
    asked = {"model": model, "sets": sets, "iterations": recipe.evaluate.iterations}
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:6]
    folder = storage.join(workspace.reports, f"evaluation-{recipe.name}-{bundle.digest}-{key}")
    found: dict[str, Any] = {}
    measured: list[Measurement] = []
    notes: list[str] = []
    for name in sets:
        result = measure_set(workspace, bundle, name, progress, baseline=baseline, workers=workers, folder=exported)
        home = storage.join(folder, name)
        hands = shown_hands(bundle, result)
        files = write_report(result, home, evaluation_sheet(result, hands))
        try:
            files |= _submission(workspace, name, result, home)
        except SubmissionError as error:
            notes.append(f"{name}: {error}")
        measured.append(Measurement(result, hands))
        found[name] = json.loads(result.to_json()) | {"files": files}
    page_uri = storage.join(folder, PAGE)
    faces = bundle.model.mano.faces.cpu().numpy()
    storage.write_bytes_atomic(page_uri, page(model, bundle.digest, measured, faces).encode())
    summary = {"model": model, "model_digest": bundle.digest, "page": page_uri, "sets": found}
    uri = storage.join(folder, SUMMARY)
    storage.write_bytes_atomic(uri, (json.dumps(summary, indent=1) + "\n").encode())
    numbers: dict[str, float | int | str] = {"samples": sum(s["count"] for s in found.values())}
    gain = next(iter(found.values()))["gain_over_mean_pose"]
    if gain is not None:
        numbers["gain_over_mean_pose"] = round(gain, 4)
    if notes:
        numbers["no_submission"] = "; ".join(notes)
    return Receipt.of(uri, **numbers)


def _asked_sets(recipe: Recipe, sets: Sequence[str]) -> list[str]:
    """Those that are asked for, else the recipe's; ValueError for a path or address."""
    for name in sets:
        dataset, _, split = name.partition("/")
        if not (dataset and split) or ":" in dataset or "/" in split:
            raise ValueError(
                f"shard set {name!r}: expected DATASET/SPLIT, such as freihand_synth/evaluation; MASKHAND_SHARDS names "
                "the folder or s3:// place where the sets are"
            )
    return list(sets or recipe.data.evaluate)


def _submission(workspace: Workspace, name: str, result: EvaluationResult, folder: str) -> dict[str, str]:
    """URIs of the predictions in the benchmark's official format, by file; none where the split is no benchmark's."""
    from maskhand.catalog import load_spec
    from maskhand.evaluation.submission import Layout, write
    from maskhand.shards.manifest import read_manifest

    dataset, _, split = name.partition("/")
    spec = load_spec(dataset)
    if spec.benchmark is None or split not in spec.benchmark.splits:
        return {}
    layout = Layout(
        format=spec.benchmark.format,
        joint_order=spec.joint_order or "openpose21",
        axes=spec.axes or "opencv",
        meters_per_unit=1.0 if spec.units is None else spec.meters_per_unit,
        planned=read_manifest(workspace.shard_set(name), IMAGES).planned,
    )
    files = {f"{SUBMISSION}{name}": data for name, data in write(result.predictions, layout).items()}
    uris = {name: storage.join(folder, name) for name in files}
    for name, data in files.items():
        storage.write_bytes_atomic(uris[name], data)
    return uris


def table(receipt: Receipt) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of an evaluation, for people: a row per set and predictor."""
    rows = [
        [name, row["name"], *(_cell(row["metrics"][metric]) for metric in COLUMNS)]
        for name, result in read_summary(receipt)["sets"].items()
        for row in result["rows"]
    ]
    return ["set", "predictor", *COLUMNS.values()], rows


def sheets(receipt: Receipt) -> dict[str, str]:
    """URIs of an evaluation's contact sheets, by set."""
    return {name: result["files"]["sheet.png"] for name, result in read_summary(receipt)["sets"].items()}


def of_model(receipt: Receipt) -> str:
    """The model that an evaluation measured, with the digest of its weights."""
    summary = read_summary(receipt)
    return f"{summary['model']} ({summary['model_digest']})"


def page_uri(receipt: Receipt) -> str:
    """The evaluation's report, one HTML file that needs nothing else."""
    return read_summary(receipt)["page"]


def as_data_url(png_uri: str) -> str:
    """An image inside its own address, for pages that cannot reach our files."""
    return "data:image/png;base64," + base64.b64encode(storage.read_bytes(png_uri)).decode()


def read_summary(receipt: Receipt) -> dict[str, Any]:
    """What `evaluation.json` holds."""
    return json.loads(storage.read_bytes(receipt.uri))


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
