"""Registered models: versions, the aliases `challenger` and `champion`, and the sentence that gives the reason."""

from __future__ import annotations

import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from maskhand.errors import without_passwords
from maskhand.promotion import Score, judge
from maskhand.tracking.answering import answering
from maskhand.tracking.moved import local_path
from maskhand.tracking.records import BUNDLE, MODEL, ModelVersion, Promotion
from maskhand.tracking.runs import Runs
from maskhand.tracking.server import server_version
from maskhand.tracking.store import DefaultStore

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model or version that is not registered, and for an alias that it does not have."""
_SERVING_PACKAGES = (
    "ai-edge-litert", "embreex", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow-heif", "pyarrow",
    "pydantic", "pyyaml", "scipy", "simplejpeg", "timm", "torch", "torchvision", "trimesh",
)  # fmt: skip


class Tracker(Runs):
    """Runs and models of one tracking store."""

    def register_model(self, bundle_dir: str | Path, run_id: str, score: Score, name: str = MODEL) -> ModelVersion:
        """Register a model bundle as the next version of `name`, made by `run_id`.

        score: what the gate sees, see `promote`. The bundle and our code travel with the model. Raises
        TrackingServerError.
        """
        import mlflow

        server_version(self.uri)  # the server may be another one than the training's
        package = Path(__file__).parents[1]
        with (
            answering(self.uri),
            DefaultStore(self.uri),
            mlflow.start_run(run_id=run_id),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message=".*input example")  # the signature is written, not guessed
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(package / "serving.py"),
                artifacts={BUNDLE: str(bundle_dir)},
                code_paths=[str(package)],
                signature=_signature(),
                pip_requirements=[f"{p}=={metadata.version(p).partition('+')[0]}" for p in _SERVING_PACKAGES],
                registered_model_name=name,
            )
        version = ModelVersion(name, int(logged.registered_model_version))
        for tag, value in score.as_tags().items():
            self._client.set_model_version_tag(name, str(version.version), tag, value)
        self.log_metrics(run_id, {f"registered/{metric}": value for metric, value in score.as_numbers().items()})
        return version

    def promote(self, version: ModelVersion) -> Promotion:
        """Make `version` the challenger, and the champion if it is better (`promotion.judge`); with the reason."""
        candidate = Score.of_tags(self._client.get_model_version(version.name, str(version.version)).tags)
        if candidate is None:
            raise ValueError(f"{version.uri} was registered without an evaluation; register it with register_model")
        champion = self._alias(version.name, "champion")
        better, reason = judge(
            candidate,
            None if champion is None else Score.of_tags(champion.tags),
            None if champion is None else f"version {champion.version}",
        )
        aliases = ("challenger", "champion") if better else ("challenger",)
        for alias in aliases:
            self._client.set_registered_model_alias(version.name, alias, str(version.version))
        self._say(version, reason)
        return Promotion(version, aliases, reason)

    def contenders(self, newest: int) -> tuple[ModelVersion | None, list[ModelVersion]]:
        """Champion of the models that read images, if any; the `newest` versions after it, the newest first."""
        champion = self._alias(MODEL, "champion")
        after = 0 if champion is None else int(champion.version)
        numbers = (int(v.version) for v in self._client.search_model_versions(f"name = '{MODEL}'"))
        later = sorted((number for number in numbers if number > after), reverse=True)[:newest]
        return (ModelVersion(MODEL, after) if after else None), [ModelVersion(MODEL, number) for number in later]

    def record_decision(self, version: ModelVersion, becomes_champion: bool, reason: str) -> Promotion:
        """Keep the gate's sentence with the version, and move the alias `champion` to it if it won."""
        if becomes_champion:
            self._client.set_registered_model_alias(version.name, "champion", str(version.version))
        self._say(version, reason)
        return Promotion(version, ("champion",) if becomes_champion else (), reason)

    def _say(self, version: ModelVersion, reason: str) -> None:
        self._client.set_model_version_tag(version.name, str(version.version), "promotion", reason)
        self._client.update_model_version(version.name, str(version.version), description=reason)

    def aliases(self, version: ModelVersion) -> tuple[str, ...]:
        """Those that name this version now."""
        named = self._client.get_registered_model(version.name).aliases
        return tuple(sorted(alias for alias, number in named.items() if int(number) == version.version))

    def resolve(self, model_uri: str) -> ModelVersion:
        """The version that `models:/NAME@ALIAS` or `models:/NAME/VERSION` names now; LookupError when there is none."""
        known = self._known(model_uri)
        return ModelVersion(known.name, int(known.version))

    def run_of(self, model_uri: str) -> str:
        """Id of the run that made a registered version, "" where none is recorded; LookupError as in `resolve`."""
        return self._known(model_uri).run_id or ""

    def _known(self, model_uri: str) -> Any:
        """The registry's record of a version."""
        from mlflow.exceptions import MlflowException

        name, at, alias = model_uri.removeprefix("models:/").partition("@")
        name, _, number = name.partition("/")
        try:
            if at:
                return self._client.get_model_version_by_alias(name, alias)
            if number.isdecimal():
                return self._client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
        raise LookupError(f"{model_uri}: no such model in {without_passwords(self.uri)}; {self._there_is(name)}")

    def _there_is(self, name: str) -> str:
        """What a mistaken name of a model might have meant."""
        numbers = sorted(int(v.version) for v in self._client.search_model_versions(f"name = '{name}'"))
        if not numbers:
            names = [model.name for model in self._client.search_registered_models()]
            return f"registered are {', '.join(names)}" if names else "none is registered"
        aliases = self._client.get_registered_model(name).aliases
        named = [f"{name}@{alias} (version {number})" for alias, number in sorted(aliases.items())]
        return f"there are {', '.join([*named, *(f'{name}/{number}' for number in numbers)])}"

    def bundle_folder(self, model_uri: str) -> Path:
        """Local folder of the bundle of a registered version; LookupError as in `resolve`, or where it is lost."""
        import mlflow

        known = self._known(model_uri)
        name = known.name
        root = self._artifacts.parent if self._artifacts else Path(tempfile.mkdtemp(prefix="maskhand-models-"))
        # With the run: a registry that was deleted counts its versions from 1 again.
        folder = root / "fetched" / f"{name}-{known.version}-{known.run_id}"
        if not (folder / "MLmodel").exists():
            kept = local_path(self._client.get_model_version_download_uri(name, known.version))
            if kept is not None and not kept.exists():
                raise LookupError(
                    f"{model_uri}: its files were kept in {kept}, where nothing is any more; copy them back, or name "
                    "the exported folder instead: --model WORKSPACE/runs/RUN/export"
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (
                answering(self.uri),
                DefaultStore(self.uri),
                tempfile.TemporaryDirectory(dir=folder.parent) as part,
            ):
                got = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{known.version}", dst_path=part)
                Path(got).rename(folder)
        return next((folder / "artifacts").iterdir())

    def _alias(self, name: str, alias: str) -> Any | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            return None


def _signature() -> Any:
    import pyarrow as pa
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    from maskhand.predict.service import COLUMNS, PARAMETERS

    def column(kind: pa.DataType) -> DataType | Array:
        if pa.types.is_list(kind):
            return Array(column(kind.value_type))
        names = {pa.string(): "string", pa.int64(): "long", pa.bool_(): "boolean"}
        return DataType[names.get(kind, "double")]

    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "image")]),
        outputs=Schema([ColSpec(column(kind), name, required=False) for name, kind in COLUMNS.items()]),
        params=ParamSchema(
            [
                ParamSpec(name, DataType[kind], default, shape=(-1,) if isinstance(default, list) else None)
                for name, (kind, default) in PARAMETERS.items()
            ]
        ),
    )
