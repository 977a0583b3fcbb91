"""The experiment tracker and the model registry: the one place that knows MLflow (with `serving.py`, which it loads).

A run per training or evaluation, opened by whoever orchestrates and continued by its id; workers of rank 0 write curves
to it through a `RunReporter`. Registered models predict from pictures, see `serving.py`. Without a server everything
lives in a database file and a folder of the workspace.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from maskhand.config import Recipe
from maskhand.promotion import Score, judge
from maskhand.provenance import code_digest, git_sha
from maskhand.workspace import Workspace

MODEL = "maskhand"
"""Name of the registered model."""
BUNDLE = "bundle"
"""Name of the model bundle among the artifacts of a registered model."""

_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000  # what MLflow's servers take at once
_SERVING_PACKAGES = (
    "ai-edge-litert", "embreex", "mlflow", "numpy", "opencv-python-headless", "pandas", "pydantic", "pyyaml", "scipy",
    "timm", "torch", "torchvision", "trimesh",
)  # fmt: skip

RunStatus = Literal["FINISHED", "FAILED"]


@dataclass(frozen=True)
class Lineage:
    """A data set that went into a run."""

    name: str
    uri: str
    digest: str
    """Of its manifest."""


@dataclass(frozen=True)
class ModelVersion:
    name: str
    version: int

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Promotion:
    """What the gate decided about a model version."""

    version: ModelVersion
    aliases: tuple[str, ...]
    """Aliases that name this version now."""
    reason: str
    """A sentence; also kept as the version's tag `promotion`."""


@dataclass(frozen=True)
class TrackedRun:
    """A run of the past."""

    run_id: str
    started_ms: int
    """Since 1970."""
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


class Tracker:
    """Runs and models of one tracking store."""

    def __init__(self, uri: str, artifacts: Path | None = None, experiment: str = "maskhand") -> None:
        """uri: `sqlite:///...` or a server's `http(s)://...`; artifacts: folder for files, needed without a server."""
        self.uri = uri
        self._artifacts = artifacts
        self._experiment = experiment

    @classmethod
    def of(cls, workspace: Workspace) -> Tracker:
        """The workspace's own store, or the server named by `$MLFLOW_TRACKING_URI`."""
        return cls(workspace.mlflow_uri, workspace.root / "mlflow" / "artifacts")

    def start_run(
        self,
        kind: str,
        recipe: Recipe,
        tags: Mapping[str, str],
        datasets: Sequence[Lineage] = (),
        run_name: str | None = None,
    ) -> str:
        """Open a run and return its id.

        Its parameters are the recipe's values, its file `recipe.yaml` the whole of it; tags say kind, recipe and code,
        and whatever `tags` adds (identity, hand model, the flow's run id, ...); `datasets` become its inputs.
        """
        import yaml
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        all_tags = {
            "kind": kind,
            "recipe": recipe.name,
            "recipe_digest": recipe.digest(),
            "git_sha": git_sha(),
            "code_digest": code_digest(),
            **tags,
        }
        client = self._client
        run = client.create_run(self._experiment_id, tags=all_tags, run_name=run_name or f"{kind}-{recipe.name}")
        run_id = run.info.run_id
        params = [Param(name, value) for name, value in recipe.flat().items()]
        for batch in _batches(params, _PARAMS_PER_BATCH):
            client.log_batch(run_id, params=batch)
        client.log_text(run_id, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), "recipe.yaml")
        if datasets:
            context = [InputTag("mlflow.data.context", kind)]
            inputs = [
                DatasetInput(
                    Dataset(d.name, d.digest, "s3" if "://" in d.uri else "local", json.dumps({"uri": d.uri})), context
                )
                for d in datasets
            ]
            client.log_inputs(run_id, inputs)
        return run_id

    def find_run(self, kind: str, identity: str) -> str | None:
        """The newest run of this kind tagged with this identity; None when there is none."""
        query = f"tags.kind = '{kind}' and tags.identity = '{identity}'"
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        return found[0].info.run_id if found else None

    def history(self, kind: str, limit: int = 50) -> list[TrackedRun]:
        """The finished runs of a kind, the newest first."""
        query = f"tags.kind = '{kind}' and attributes.status = 'FINISHED'"
        order = ["attributes.start_time DESC"]
        runs = self._client.search_runs([self._experiment_id], query, max_results=limit, order_by=order)
        return [TrackedRun(r.info.run_id, r.info.start_time, dict(r.data.tags), dict(r.data.metrics)) for r in runs]

    def end_run(self, run_id: str, status: RunStatus = "FINISHED") -> None:
        self._client.set_terminated(run_id, status)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers by slashed name, such as `eval/freihand_synth/pa_mpjpe_mm`; NaN and infinity are left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        finite = [
            Metric(name, float(v), now_ms, step) for name, v in metrics.items() if float("-inf") < v < float("inf")
        ]
        for batch in _batches(finite, _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch)

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)

    def log_file(self, run_id: str, path: str | Path, folder: str = "") -> None:
        """Keep a local file with the run."""
        self._client.log_artifact(run_id, str(path), folder or None)

    def log_image(self, run_id: str, name: str, png: bytes) -> None:
        """Keep a PNG with the run as `name` (such as `sheet.png`)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(png)
            self.log_file(run_id, path, Path(name).parent.as_posix().removeprefix("."))

    def log_history(self, run_id: str, metrics_jsonl: str | Path) -> None:
        """Keep a finished run's `metrics.jsonl` with its curves as a picture, `curves.png`."""
        rows = [json.loads(line) for line in Path(metrics_jsonl).read_text().splitlines()]
        by_step = {row["step"]: row for row in rows}  # a restarted run says some steps twice
        self.log_file(run_id, metrics_jsonl)
        if by_step:
            self.log_image(run_id, "curves.png", curves_png([by_step[step] for step in sorted(by_step)]))

    def register_model(
        self, bundle_dir: str | Path, run_id: str, metrics: Mapping[str, float], evaluation_digest: str
    ) -> ModelVersion:
        """Register a model bundle as the next version of `maskhand`, made by `run_id`.

        metrics: of its evaluation, with `pa_mpjpe_mm` and `mean_pose_pa_mpjpe_mm` for the gate (see `promote`);
        evaluation_digest: of the data it was evaluated on. The bundle and our code travel with the model.
        """
        import mlflow

        score = Score(metrics["pa_mpjpe_mm"], metrics["mean_pose_pa_mpjpe_mm"], evaluation_digest)
        package = Path(__file__).parent
        with self._as_default(), mlflow.start_run(run_id=run_id), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example")  # the signature is written, not guessed
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(package / "serving.py"),
                artifacts={BUNDLE: str(bundle_dir)},
                code_paths=[str(package)],
                signature=_signature(),
                pip_requirements=[f"{name}=={metadata.version(name).partition('+')[0]}" for name in _SERVING_PACKAGES],
                registered_model_name=MODEL,
            )
        version = ModelVersion(MODEL, int(logged.registered_model_version))
        for name, value in score.as_tags().items():
            self._client.set_model_version_tag(MODEL, str(version.version), name, value)
        self.log_metrics(run_id, {f"registered/{name}": value for name, value in metrics.items()})
        return version

    def promote(self, version: ModelVersion) -> Promotion:
        """Make `version` the challenger, and the champion if it deserves it (`promotion.judge`); says why."""
        candidate = Score.of_tags(self._client.get_model_version(MODEL, str(version.version)).tags)
        if candidate is None:
            raise ValueError(f"{version.uri} was registered without an evaluation; register it with register_model")
        champion = self._alias("champion")
        better, reason = judge(
            candidate,
            None if champion is None else Score.of_tags(champion.tags),
            None if champion is None else f"version {champion.version}",
        )
        aliases = ("challenger", "champion") if better else ("challenger",)
        for alias in aliases:
            self._client.set_registered_model_alias(MODEL, alias, str(version.version))
        self._client.set_model_version_tag(MODEL, str(version.version), "promotion", reason)
        self._client.update_model_version(MODEL, str(version.version), description=reason)
        return Promotion(version, aliases, reason)

    def contenders(self, newest: int) -> tuple[ModelVersion | None, list[ModelVersion]]:
        """(the champion, if any; the `newest` versions registered after it, the newest first)."""
        champion = self._alias("champion")
        after = 0 if champion is None else int(champion.version)
        numbers = (int(v.version) for v in self._client.search_model_versions(f"name = '{MODEL}'"))
        later = sorted((number for number in numbers if number > after), reverse=True)[:newest]
        return (ModelVersion(MODEL, after) if after else None), [ModelVersion(MODEL, number) for number in later]

    def record_decision(self, version: ModelVersion, becomes_champion: bool, reason: str) -> Promotion:
        """Keep the gate's sentence with the version, and move the alias `champion` to it if it won."""
        if becomes_champion:
            self._client.set_registered_model_alias(MODEL, "champion", str(version.version))
        self._client.set_model_version_tag(MODEL, str(version.version), "promotion", reason)
        return Promotion(version, ("champion",) if becomes_champion else (), reason)

    def bundle_folder(self, model_uri: str) -> Path:
        """Local folder of the bundle of `models:/NAME@ALIAS` or `models:/NAME/VERSION`; LookupError when unknown."""
        import mlflow
        from mlflow.exceptions import MlflowException

        name, _, alias = model_uri.removeprefix("models:/").partition("@")
        try:
            if alias:
                version = str(self._client.get_model_version_by_alias(name, alias).version)
            else:
                name, _, version = name.partition("/")
                self._client.get_model_version(name, version)
        except MlflowException as error:
            raise LookupError(f"{model_uri}: no such model in {self.uri} ({error.message}); train one first") from None
        root = self._artifacts.parent if self._artifacts else Path(tempfile.mkdtemp(prefix="maskhand-models-"))
        folder = root / "fetched" / f"{name}-{version}"
        if not (folder / "MLmodel").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with self._as_default(), tempfile.TemporaryDirectory(dir=folder.parent) as part:
                got = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}", dst_path=part)
                Path(got).rename(folder)
        return next((folder / "artifacts").iterdir())

    def _alias(self, alias: str) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(MODEL, alias)
        except MlflowException:
            return None

    @functools.cached_property
    def _client(self) -> Any:
        mlflow = _import_mlflow(self.uri)
        return mlflow.MlflowClient(self.uri, self.uri)

    @functools.cached_property
    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return found.experiment_id
        location = None
        if self._artifacts is not None and "://" in self.uri and not self.uri.startswith(("http://", "https://")):
            location = self._artifacts.resolve().as_uri()  # else MLflow writes ./mlruns of whatever folder one is in
        return self._client.create_experiment(self._experiment, artifact_location=location)

    def _as_default(self) -> _DefaultStore:
        return _DefaultStore(self.uri)


class RunReporter:
    """`report(step, metrics)` into a tracked run from a training worker; picklable, logs in a thread of its own.

    A tracker that cannot be reached costs its curves, not the training: one warning, and metrics.jsonl has them all.
    """

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RunReporter, (self._uri, self._run_id)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="maskhand-mlflow", daemon=True)
            self._thread.start()
        self._queue.put((step, dict(metrics)))

    def close(self) -> None:
        """Wait until everything is written."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=60)
            self._thread = None

    def _work(self) -> None:
        tracker = Tracker(self._uri)
        failed = False
        while (item := self._queue.get()) is not None:
            try:
                if not failed:
                    tracker.log_metrics(self._run_id, item[1], item[0])
            except Exception as error:
                failed = True
                print(f"warning: curves are not tracked any more, {self._uri} fails: {error}", file=sys.stderr)


def curves_png(rows: Sequence[Mapping[str, float]]) -> bytes:
    """A picture of every metric in `rows` (with `step`) over the steps."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in rows[-1] if name != "step"]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, k + 1)
        known = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*known, strict=True))
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


class _DefaultStore:
    """Makes a store the process's default for a block: MLflow's model functions know no other way."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        mlflow = _import_mlflow(self._uri)
        self._environment = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
        self._before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)

    def __exit__(self, *_: object) -> None:
        import mlflow

        mlflow.set_tracking_uri(self._before[0])
        mlflow.set_registry_uri(self._before[1])
        # Setting a store writes it into the environment too, where `Workspace.mlflow_uri` would take it for the user's.
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _import_mlflow(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    return mlflow


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    numbers = Array(DataType.double)
    table = Array(numbers)
    outputs: list[tuple[Any, str]] = [
        (DataType.long, "input"), (DataType.long, "hand"), (DataType.string, "side"), (numbers, "box_xyxy_px"),
        (table, "pose_aa"), (numbers, "betas"), (numbers, "transl_cam_m"), (table, "joints_cam_m"),
        (table, "joints_px"), (table, "K_px"), (numbers, "joint_confidence"), (DataType.double, "score"),
    ]  # fmt: skip
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "image")]),
        outputs=Schema([ColSpec(kind, name) for kind, name in outputs]),
        params=ParamSchema([ParamSpec("vertices", DataType.boolean, False)]),
    )


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
