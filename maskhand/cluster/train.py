"""Training on Ray workers: a named run that survives lost workers and is resumed or reused under the same name.

A run is a folder `storage_path/name`, see `run_folder`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import cv2
import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from maskhand.cluster.run_folder import (
    METRICS,
    STARTS,
    FitResult,
    TrainingError,
    acquire,
    finish,
    finished,
    result_of,
    tail,
    truncate_incomplete_line,
)
from maskhand.cluster.session import LOCAL_CPUS
from maskhand.config import EngineConfig
from maskhand.errors import MaskhandError
from maskhand.lock import held
from maskhand.training.worker import Report, WorkerContext, no_report

P = ParamSpec("P")
Loop = Callable[[Any, WorkerContext], dict[str, float]]
"""`loop(job, worker)` trains and returns the last metrics; its last checkpoint holds a folder `export/`."""

_RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of two seconds delays every phase of a fit
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less; a preempted worker counts as lost
}


def _alone(fit: Callable[P, FitResult]) -> Callable[P, FitResult]:
    """Two that train one run would write into one folder, and remove each other's checkpoints."""

    @functools.wraps(fit)
    def locked(*arguments: P.args, **named: P.kwargs) -> FitResult:
        name = str(named["name"])
        with held(Path(str(named["storage_path"])), name, f"run {name}"):
            return fit(*arguments, **named)

    return locked


@_alone
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
    """Run `loop(job, worker)` on `engine.workers` Ray workers and return what it exported.

    The same name and identity continue an unfinished run from its last checkpoint and return a finished one at once;
    the same name with another identity is refused. `storage_path` is a folder that every worker can access. `reporter`
    is sent to rank 0 and called there; `on_progress` is called here. A lost worker restarts the group from the last
    checkpoint, at most `engine.max_failures` times; an error of the program itself is not retried. Needs a Ray
    session. Raises TrainingError, and LockedError while another process trains this run.
    """
    started_s = time.monotonic()
    run_dir = Path(storage_path).resolve() / name
    acquire(run_dir, identity)
    if (facts := finished(run_dir)) is not None:
        return result_of(run_dir, facts, started_s, reused=True)
    check_resources(engine)
    os.environ |= _RAY_TRAIN_ENVIRONMENT
    # Ray's type hints are those of its older API, hence Any.
    work: Any = functools.partial(_run_worker, loop, reporter, run_dir, engine.threads_per_worker)
    settings: dict[str, Any] = {
        "name": name,
        "storage_path": str(run_dir.parent),
        "failure_config": FailureConfig(max_failures=engine.max_failures),
        "checkpoint_config": CheckpointConfig(num_to_keep=2),
        "callbacks": [StopOnProgramError()],
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
    with tail(run_dir / METRICS, on_progress):
        try:
            result: Any = trainer.fit()
        except ray.train.TrainingFailedError as error:
            cause = _root_cause(error)
            raise TrainingError(
                f"run {name}: {_line(cause)}; its files are in {run_dir}", retryable=is_retryable(cause)
            ) from error
    if result.checkpoint is None:
        raise TrainingError(f"run {name}: ended without a checkpoint; its files are in {run_dir}")
    with result.checkpoint.as_directory() as folder:
        facts = finish(run_dir, Path(folder), result.return_value)
    return result_of(run_dir, facts, started_s, reused=False)


def check_resources(engine: EngineConfig) -> None:
    """TrainingError when the local session lacks resources for the workers: Ray would wait forever.

    A cluster may scale up, so there it is not an error. Starts no session.
    """
    local = {"CPU": LOCAL_CPUS, "GPU": torch.cuda.device_count()}
    available = ray.cluster_resources() if ray.is_initialized() else local
    wanted = {"CPU": engine.workers} | ({"GPU": engine.workers} if engine.use_gpu else {})
    lacking = [
        f"{count} {kind}s ({available.get(kind, 0):.0f} available)"
        for kind, count in wanted.items()
        if available.get(kind, 0) < count
    ]
    if lacking and not os.environ.get("RAY_ADDRESS"):
        raise TrainingError(
            f"engine.workers={engine.workers} with engine.use_gpu={str(engine.use_gpu).lower()} needs "
            f"{' and '.join(lacking)}; --set engine.workers=..., engine.use_gpu=false, or name a cluster in RAY_ADDRESS"
        )


# --- inside a worker


def _run_worker(
    loop: Loop, reporter: Report | None, run_dir: Path, threads: int, config: dict[str, Any]
) -> dict[str, float]:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    if rank != 0:
        return loop(config["job"], WorkerContext(rank, context.get_world_size(), no_report, _RayStore()))
    with (run_dir / STARTS).open("a") as starts:
        starts.write(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
    try:
        report = MetricsFile(run_dir / METRICS, reporter)
        return loop(config["job"], WorkerContext(rank, context.get_world_size(), report, _RayStore()))
    finally:
        if (close := getattr(reporter, "close", None)) is not None:
            close()


class _RayStore:
    """A `CheckpointStore` on `ray.train.report`, which merges the folders of all ranks atomically."""

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


class MetricsFile:
    """A `Report` that appends to the metrics file of a run, then calls `reporter`."""

    def __init__(self, path: Path, reporter: Report | None) -> None:
        self._path, self._reporter = path, reporter
        truncate_incomplete_line(path)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._path.open("a") as lines:
            lines.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._reporter is not None:
            self._reporter(step, metrics)


# --- inside Ray's controller


class StopOnProgramError(UserCallback):
    """Ends the run on errors that a retry cannot fix; lost processes and connections are retried."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if not is_retryable(cause := _unwrapped(error)):
                raise cause


def is_retryable(cause: BaseException) -> bool:
    """Is it a lost process (Ray's own errors), a failed collective of the other ranks, or a storage error?"""
    if isinstance(cause, MaskhandError):
        return cause.retryable
    if isinstance(cause, RuntimeError) and not isinstance(cause, ray.exceptions.RayError):
        return re.search("gloo|nccl|connection|socket|timed out", str(cause), re.IGNORECASE) is not None
    if isinstance(cause, OSError):
        return not isinstance(cause, FileNotFoundError)
    return type(cause).__module__.partition(".")[0] == "ray"


# --- in the driver


def _worker_environment(engine: EngineConfig) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(engine.threads_per_worker)}
    if not engine.use_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    if sum(node["Alive"] for node in ray.nodes()) == 1:
        # Gloo would otherwise resolve the host name, which fails on many laptops.
        environment["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    return environment


def _root_cause(error: Exception) -> BaseException:
    """A worker's own exception, preferably one that a retry cannot fix, or the controller's."""
    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", error)}
    return min(map(_unwrapped, failures.values()), key=is_retryable)


def _line(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1] if isinstance(cause, ray.exceptions.RayError) else lines[0]}"


def _unwrapped(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappers, which store it under different attributes."""
    for attribute in ("_base_exc", "cause", "__cause__"):
        inner = getattr(error, attribute, None)
        if isinstance(inner, BaseException) and not isinstance(error, ray.exceptions.RayActorError):
            return _unwrapped(inner)
    return error
