"""Training on Ray workers: a run with a stable name, that survives lost workers and is never done twice.

A run is a folder `storage_path/name`. Ray keeps its checkpoints there; we add `run.json` (what the run is),
`metrics.jsonl` (a line per report), `starts.txt` (a line per start of the workers), and at the end `export/` (what the
loop exported) and, last, `finished.json`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from maskhand.config import EngineConfig
from maskhand.training.checkpoint import EXPORT
from maskhand.training.worker import Report, Worker, silent

Loop = Callable[[Any, Worker], dict[str, float]]
"""`loop(job, worker)` trains and returns the last metrics; its last checkpoint holds a folder `export/`."""

STARTS = "starts.txt"
_RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else every phase of a fit waits for a tick of two seconds
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less; a preempted worker is a lost worker like any other
}
REPORT_POLL_S = 0.25


class TrainingError(RuntimeError):
    """A training run that cannot start or did not end well; the message says why and where to look."""


@dataclass(frozen=True)
class FitResult:
    """A finished run."""

    run_dir: Path
    export_dir: Path
    """What the loop exported: the tokenizer's files, or a model bundle."""
    metrics: dict[str, float]
    """The last reported metrics."""
    steps: int
    restarts: int
    """How often the workers were started again, after one was lost or by another call."""
    seconds: float
    """Duration of this call."""
    reused: bool
    """True when the run had been finished before and nothing was trained."""


def fit(
    loop: Loop,
    job: Any,
    *,
    name: str,
    identity: str,
    storage_path: str | Path,
    engine: EngineConfig,
    reporter: Report | None = None,
    on_progress: Callable[[int, dict[str, float]], None] | None = None,
) -> FitResult:
    """Run `loop(job, worker)` on `engine.workers` Ray workers until it is done, and return what it exported.

    The same name and identity continue an unfinished run from its last checkpoint and return a finished one at once;
    the same name with another identity is refused. `storage_path` is a folder that every worker reaches. `reporter`
    travels to rank 0 and is called there; `on_progress` is called here. A lost worker restarts the group from the last
    checkpoint, at most `engine.max_failures` times; an error of the program itself is not repeated. Needs a session of
    Ray. Raises TrainingError.
    """
    started_s = time.monotonic()
    run_dir = Path(storage_path).resolve() / name
    _claim(run_dir, identity)
    if (finished := _read_json(run_dir / "finished.json")) is not None:
        return _result(run_dir, finished, started_s, reused=True)
    os.environ |= _RAY_TRAIN_ENVIRONMENT
    # Ray's types describe the older version of its own API, hence Any.
    work: Any = functools.partial(_run_worker, loop, reporter, run_dir, engine.threads_per_worker)
    settings: dict[str, Any] = {
        "name": name,
        "storage_path": str(run_dir.parent),
        "failure_config": FailureConfig(max_failures=engine.max_failures),
        "checkpoint_config": CheckpointConfig(num_to_keep=2),
        "callbacks": [_StopOnProgramError()],
        "worker_runtime_env": {"env_vars": _worker_environment(engine)},
        "logging_config": ray.train.LoggingConfig(log_level="ERROR"),
    }
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if engine.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=engine.workers,
            use_gpu=engine.use_gpu,
            resources_per_worker={"CPU": 1} | ({"GPU": 1} if engine.use_gpu else {}),
        ),
        run_config=RunConfig(**settings),
    )
    with _follow(run_dir / "metrics.jsonl", on_progress):
        try:
            result: Any = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"run {name}: {_root_cause(error)}; its files are in {run_dir}") from error
    if result.checkpoint is None:
        raise TrainingError(f"run {name}: ended without a checkpoint; its files are in {run_dir}")
    return _result(run_dir, _finish(run_dir, result.checkpoint, result.return_value), started_s, reused=False)


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """The reported metrics of a run in the order of their steps; a step repeated after a restart counts once."""
    by_step: dict[float, dict[str, float]] = {}
    path = Path(run_dir) / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        by_step[row["step"]] = row
    return [by_step[step] for step in sorted(by_step)]


# --- inside a worker


def _run_worker(
    loop: Loop, reporter: Report | None, run_dir: Path, threads: int, config: dict[str, Any]
) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    if rank != 0:
        return loop(config["job"], Worker(rank, context.get_world_size(), silent, _RayStore()))
    with (run_dir / STARTS).open("a") as starts:
        starts.write(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
    try:
        report = _ToFileAnd(reporter, run_dir / "metrics.jsonl")
        return loop(config["job"], Worker(rank, context.get_world_size(), report, _RayStore()))
    finally:
        if (close := getattr(reporter, "close", None)) is not None:
            close()


class _RayStore:
    """Checkpoints through `ray.train.report`, which merges the folders of all ranks and keeps the result or nothing."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="maskhand-checkpoint-") as folder:
            write(Path(folder))
            ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder))

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
        else:
            with checkpoint.as_directory() as folder:
                yield Path(folder)


class _ToFileAnd:
    """Appends each report to a file of the run, then hands it on."""

    def __init__(self, reporter: Report | None, path: Path) -> None:
        self._reporter, self._path = reporter, path

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._path.open("a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._reporter is not None:
            self._reporter(step, metrics)


# --- inside Ray's controller


class _StopOnProgramError(UserCallback):
    """Ends the run on what no repetition will mend; lost processes and broken connections are tried again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if not _may_heal(cause := _unwrapped(error)):
                raise cause


def _may_heal(cause: BaseException) -> bool:
    """A lost process (Ray's own errors), its echo in the other ranks' collectives, or storage that failed once."""
    if isinstance(cause, RuntimeError) and not isinstance(cause, ray.exceptions.RayError):
        return re.search("gloo|nccl|connection|socket|timed out", str(cause), re.IGNORECASE) is not None
    if isinstance(cause, OSError):
        return not isinstance(cause, FileNotFoundError)
    return type(cause).__module__.partition(".")[0] == "ray"


# --- in the driver


def _claim(run_dir: Path, identity: str) -> None:
    """Take the folder for this identity, or refuse with a sentence when it belongs to another one."""
    known = _read_json(run_dir / "run.json")
    if known is None:
        run_dir.mkdir(parents=True, exist_ok=True)
        _write_json(run_dir / "run.json", {"identity": identity})
    elif known["identity"] != identity:
        raise TrainingError(
            f"run {run_dir.name}: {run_dir} holds a run with other settings or data (identity {known['identity']}, "
            f"this one is {identity}); choose another name or delete the folder"
        )


def _finish(run_dir: Path, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Take the export out of the last checkpoint; `finished.json` is written last."""
    fresh = run_dir / f".{EXPORT}.part"
    shutil.rmtree(fresh, ignore_errors=True)
    with checkpoint.as_directory() as folder:
        if not (Path(folder) / EXPORT).is_dir():
            raise TrainingError(f"run {run_dir.name}: the last checkpoint in {run_dir} holds no {EXPORT}/ folder")
        shutil.copytree(Path(folder) / EXPORT, fresh)
    shutil.rmtree(run_dir / EXPORT, ignore_errors=True)
    fresh.rename(run_dir / EXPORT)
    starts = (run_dir / STARTS).read_text().splitlines()
    finished = {
        "steps": int(read_metrics(run_dir)[-1]["step"]),
        "metrics": dict(metrics),
        "restarts": len(starts) - 1,
    }
    _write_json(run_dir / "finished.json", finished)
    return finished


@contextmanager
def _follow(path: Path, on_progress: Callable[[int, dict[str, float]], None] | None) -> Iterator[None]:
    """Call `on_progress` in a thread for every line that is added to `path` while the block runs."""
    if on_progress is None:
        yield
        return
    ended = threading.Event()
    start = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        position = start
        while True:
            last_look = ended.is_set()
            if path.exists():
                with path.open() as lines:
                    lines.seek(position)
                    for line in iter(lines.readline, ""):
                        if not line.endswith("\n"):
                            break  # half written: the next look takes it whole
                        position += len(line.encode())
                        row = json.loads(line)
                        on_progress(int(row.pop("step")), row)
            if last_look:
                return
            ended.wait(REPORT_POLL_S)

    thread = threading.Thread(target=follow, name="maskhand-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _worker_environment(engine: EngineConfig) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(engine.threads_per_worker)}
    if not engine.use_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    if sum(node["Alive"] for node in ray.nodes()) == 1:
        # Gloo would otherwise resolve the machine's own name, which fails on many laptops.
        environment["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    return environment


def _root_cause(error: Exception) -> str:
    """One line: the first worker's own exception, or the controller's."""
    failures = getattr(error, "worker_failures", None)
    cause = _unwrapped(next(iter(failures.values())) if failures else getattr(error, "controller_failure", error))
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1] if isinstance(cause, ray.exceptions.RayError) else lines[0]}"


def _unwrapped(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappers, which name it differently."""
    for attribute in ("_base_exc", "cause", "__cause__"):
        inner = getattr(error, attribute, None)
        if isinstance(inner, BaseException) and not isinstance(error, ray.exceptions.RayActorError):
            return _unwrapped(inner)
    return error


def _result(run_dir: Path, finished: Mapping[str, Any], started_s: float, *, reused: bool) -> FitResult:
    return FitResult(
        run_dir=run_dir,
        export_dir=run_dir / EXPORT,
        metrics=finished["metrics"],
        steps=finished["steps"],
        restarts=finished["restarts"],
        seconds=time.monotonic() - started_s,
        reused=reused,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=2) + "\n")
    part.replace(path)
