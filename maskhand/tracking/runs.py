"""Runs: opened, filled, continued by their id, found again."""

from __future__ import annotations

import functools
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from maskhand.config import Recipe
from maskhand.errors import MaskhandError
from maskhand.foreign_errors import explained
from maskhand.kept_json import read_steps
from maskhand.provenance import code_digest, git_sha
from maskhand.tracking.answering import AnsweringClient
from maskhand.tracking.moved import follow_workspace
from maskhand.tracking.records import Lineage, RunStatus, TrackedRun
from maskhand.tracking.server import server_version
from maskhand.tracking.store import import_mlflow, opening
from maskhand.workspace import Workspace

_PARAMS_PER_BATCH, _METRICS_PER_BATCH = 100, 1000  # what MLflow's servers take at once


class Runs:
    """The runs of one tracking store."""

    def __init__(self, uri: str, artifacts: Path | None = None, experiment: str = "maskhand") -> None:
        """uri: `sqlite:///...` or a server's `http(s)://...`; artifacts: folder for files, needed without a server."""
        self.uri = uri
        self._artifacts = artifacts
        self._experiment = experiment

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
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

    @contextmanager
    def ending(self, run_id: str) -> Iterator[str]:
        """The run for a block, with which it ends: see `end_failed` where the block raised."""
        try:
            yield run_id
        except BaseException as error:
            self.end_failed(run_id, error)
            raise
        self.end_run(run_id)

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
        return [_tracked(run) for run in runs]

    def named(self, text: str) -> list[TrackedRun]:
        """The run of this id, else those of this name, the newest first; none where there is neither."""
        from mlflow.exceptions import MlflowException

        try:
            return [_tracked(self._client.get_run(text))]
        except MlflowException:
            quote = '"' if "'" in text else "'"  # MLflow's queries know no escapes
        query, order = f"attributes.run_name = {quote}{text}{quote}", ["attributes.start_time DESC"]
        return [_tracked(run) for run in self._client.search_runs([self._experiment_id], query, order_by=order)]

    def curve(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric in the order of steps; of a step that was reported twice the later value."""
        history = sorted(self._client.get_metric_history(run_id, metric), key=lambda one: (one.step, one.timestamp))
        return sorted({one.step: one.value for one in history}.items())

    def download(self, run_id: str, path: str) -> Path | None:
        """Local copy of a file or folder that is kept with a run, not to be written to; None where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return Path(self._client.download_artifacts(run_id, path))
        except (MlflowException, OSError):
            return None

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)

    def is_finished(self, run_id: str) -> bool:
        """False while the run is open or when it failed."""
        return self._client.get_run(run_id).info.status == "FINISHED"

    def end_run(self, run_id: str, status: RunStatus = "FINISHED") -> None:
        self._client.set_terminated(run_id, status)

    def end_failed(self, run_id: str, error: BaseException) -> None:
        """End a run as FAILED, or as KILLED where the program was stopped by a signal (SIGTERM, Ctrl-C).

        A store that does not answer any more must not hide the error: one warning.
        """
        try:
            server_version(self.uri, retries=1)  # the client's own attempts would hide the error for half a minute
            self.end_run(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        except Exception as lost:
            why = None if isinstance(lost, MaskhandError) else explained(lost)
            logging.getLogger(__name__).warning(f"the end of run {run_id} is not recorded: {why or lost}")

    def resume(self, run_id: str) -> None:
        """A run that had ended is running again."""
        self._client.update_run(run_id, "RUNNING")

    def rename(self, run_id: str, name: str) -> None:
        """Another name of the run on MLflow's pages."""
        self._client.update_run(run_id, name=name)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Numbers by slashed name, such as `eval/freihand_synth/pa_mpjpe_mm`; NaN and infinity are left out."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        finite = [
            Metric(name, float(v), now_ms, step) for name, v in metrics.items() if float("-inf") < v < float("inf")
        ]
        for batch in _batches(finite, _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch)

    def log_file(self, run_id: str, path: str | Path, folder: str = "") -> None:
        """Keep a local file with the run."""
        self._client.log_artifact(run_id, str(path), folder or None)

    def log_image(self, run_id: str, name: str, png: bytes) -> None:
        """Keep a PNG with the run as `name` (such as `sheet.png`)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(png)
            self.log_file(run_id, path, Path(name).parent.as_posix().removeprefix("."))

    def log_history(self, run_id: str, metrics_jsonl: str | Path) -> int:
        """Keep a finished run's `metrics.jsonl` with its curves as an image, `curves.png`; returns how many of their
        points the store lacked, as it did not answer in time, and has now."""
        from maskhand.tracking.curves import curves_png

        rows = read_steps(Path(metrics_jsonl))
        self.log_file(run_id, metrics_jsonl)
        if rows:
            self.log_image(run_id, "curves.png", curves_png(rows))
        return self._fill(run_id, {int(row["step"]): row for row in rows})

    def _fill(self, run_id: str, rows: Mapping[int, Mapping[str, float]]) -> int:
        """Log the points of rows by step that the store lacks; returns their number."""
        from mlflow.entities import Metric

        now_ms, missing = int(time.time() * 1000), list[Any]()
        for name in sorted({name for row in rows.values() for name in row if name != "step"}):
            there = {point.step for point in self._client.get_metric_history(run_id, name)}
            missing += [
                Metric(name, float(row[name]), now_ms, int(step))
                for step, row in sorted(rows.items())
                if int(step) not in there and name in row and math.isfinite(row[name])
            ]
        for batch in _batches(missing, _METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch)
        return len(missing)

    @functools.cached_property
    def _client(self) -> Any:
        """Raises TrackingServerError for a server that does not answer; also its methods do, when it is lost later."""
        server_version(self.uri)
        mlflow = import_mlflow(self.uri)
        with opening(self.uri):
            if self._artifacts is not None:
                follow_workspace(self.uri, self._artifacts, self._experiment)
            return AnsweringClient(mlflow.MlflowClient(self.uri, self.uri), self.uri)

    @functools.cached_property
    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        location = None
        if self._artifacts is not None and "://" in self.uri and not self.uri.startswith(("http://", "https://")):
            location = self._artifacts.resolve().as_uri()  # else MLflow writes ./mlruns of whatever folder one is in
        if (found := self._client.get_experiment_by_name(self._experiment)) is None:
            try:
                return self._client.create_experiment(self._experiment, artifact_location=location)
            except MlflowException:  # another process may have created it since
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return found.experiment_id


def _tracked(run: Any) -> TrackedRun:
    info, tags, params = run.info, dict(run.data.tags), dict(run.data.params)
    return TrackedRun(info.run_id, info.start_time, tags, dict(run.data.metrics), info.run_name, params)


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
