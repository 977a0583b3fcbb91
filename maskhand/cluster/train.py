"""Training on Ray workers: a named run that survives lost workers and is resumed or reused under the same name.

A run is a folder `storage_path/name`, see `run_folder`; its checkpoints are in it or elsewhere, see `checkpoints`.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

from maskhand import storage
from maskhand.cluster.journal import journal_of
from maskhand.cluster.run_folder import (
    KEPT,
    METRICS,
    NOTES,
    FitResult,
    HeldRun,
    TrainingError,
    acquire,
    finish,
    finished,
    result_of,
    tail,
)
from maskhand.cluster.session import LOCAL_CPUS, ray_session
from maskhand.cluster.worker import Loop, RunPlaces, run_worker
from maskhand.config import EngineConfig
from maskhand.errors import MaskhandError
from maskhand.foreign_errors import explained
from maskhand.training.worker import Report

_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""`errno` values of an OSError that would occur again in another attempt."""
_NO_PLACES = (WorkerGroupStartupTimeoutError, WorkerGroupStartupFailedError)
"""Errors of workers that could not start: no free resources, or a node that was lost meanwhile."""


def fit(
    loop: Loop,
    job: Any,
    run: HeldRun,
    *,
    identity: str,
    decided_by: Mapping[str, str] | None = None,
    engine: EngineConfig,
    worker_counts: Sequence[int] | None = None,
    reporter: Report | None = None,
    on_progress: Callable[[int, dict[str, float]], None] | None = None,
) -> FitResult:
    """Run `loop(job, worker)` on `engine.workers` Ray workers and return what it exported.

    An unfinished run of this identity is continued from its last checkpoint, a finished one is returned at once, and
    one of another identity, which is a digest of `decided_by`, is rejected. Every worker must have access to the run's
    folder, unless its checkpoints are in an object store: then the folder is local to this machine. `reporter` is sent
    to rank 0 and called there; `on_progress` is called here. After a lost worker the group restarts from the last
    checkpoint, at most `engine.max_failures` times; an error of the program itself is not retried. worker_counts:
    allowed numbers of workers; if resources for the largest are not free for `engine.wait_s`, at the start or after a
    loss, the run continues from the last checkpoint with the next smaller number. Raises TrainingError and errors of
    `ray_session`.
    """
    started_s = time.monotonic()
    run_dir, kept, name = run.run_dir, run.checkpoints, run.run_dir.name
    acquire(run_dir, identity, decided_by or {})
    if (facts := finished(run_dir)) is not None:
        return result_of(run_dir, facts, started_s, reused=True)
    counts = places(engine, worker_counts or (engine.workers,))
    shared = not storage.is_remote(kept.uri)
    kept_batches = run_dir / KEPT if shared else Path(tempfile.gettempdir()) / f"maskhand-{KEPT}" / name
    with (
        ray_session(),
        journal_of(run_dir, shared) as journal,
        tail(run_dir / METRICS, functools.partial(_tell_progress, on_progress)),
        tail(run_dir / NOTES, lambda note: logging.getLogger(__name__).warning(f"run {name}: {note}")),
    ):
        for_workers = RunPlaces(kept.uri, kept_batches, journal, run.claim)
        work = functools.partial(run_worker, loop, reporter, for_workers, engine)
        for workers, fewer in itertools.zip_longest(counts, counts[1:]):
            try:
                result: Any = _trainer(work, job, run_dir, engine, workers, patient=fewer is None).fit()
                break
            except ray.train.TrainingFailedError as error:
                cause = _root_cause(error)
                if fewer is None or not isinstance(getattr(error, "controller_failure", None), _NO_PLACES):
                    raise TrainingError(
                        f"run {name}: {_line(cause, run_dir)}; its files are in {run_dir}",
                        retryable=is_retryable(cause),
                    ) from error
                logging.getLogger(__name__).warning(
                    f"run {name}: no places for {workers} workers came free for {engine.wait_s:g} s; {fewer} go on"
                )
    facts = finish(run_dir, kept, result.return_value)
    return result_of(run_dir, facts, started_s, reused=False)


def _trainer(work: Any, job: Any, run_dir: Path, engine: EngineConfig, workers: int, *, patient: bool) -> TorchTrainer:
    """The trainer for this number of workers. patient: wait for their resources without a limit."""
    os.environ |= {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of two seconds delays every phase of a fit
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(engine.wait_s),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(_on_nodes())),  # a process that a single node does not need
    }
    # Ray's type hints are those of its older API, hence Any.
    failures: Any = FailureConfig
    settings: dict[str, Any] = {
        "name": run_dir.name,
        "storage_path": str(run_dir.parent),
        "failure_config": failures(max_failures=engine.max_failures, controller_failure_limit=-1 if patient else 0),
        "callbacks": [StopOnProgramError()],
        "worker_runtime_env": {"env_vars": _worker_environment(engine)},
        "logging_config": ray.train.LoggingConfig(log_level="ERROR"),
    }
    return _Trainer(
        work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(
            backend="nccl" if engine.use_gpu else "gloo", timeout_s=max(1, round(engine.step_timeout_s))
        ),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=engine.use_gpu,
            resources_per_worker={"CPU": 1} | ({"GPU": 1} if engine.use_gpu else {}),
        ),
        run_config=RunConfig(**settings),
    )


class _Trainer(TorchTrainer):
    """Ctrl-C raises KeyboardInterrupt while it fits, as elsewhere."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Leaves out Ray's, which ends the program with an exit code and without a word, and would stay for good."""


def places(engine: EngineConfig, worker_counts: Sequence[int]) -> list[int]:
    """The numbers of workers for which there may be resources, in descending order.

    A local session has fixed resources, and Ray would wait forever for more, so TrainingError is raised if they suffice
    for no number. A cluster may scale up, so all numbers are returned. Starts no session.
    """
    counts = sorted(set(worker_counts), reverse=True)
    local = {"CPU": LOCAL_CPUS, "GPU": torch.cuda.device_count()}
    available = ray.cluster_resources() if ray.is_initialized() else local
    kinds = ("CPU", "GPU") if engine.use_gpu else ("CPU",)
    if os.environ.get("RAY_ADDRESS"):
        return counts
    if fitting := [count for count in counts if all(available.get(kind, 0) >= count for kind in kinds)]:
        return fitting
    lacking = [
        f"{counts[-1]} {kind}s ({available.get(kind, 0):.0f} available)"
        for kind in kinds
        if available.get(kind, 0) < counts[-1]
    ]
    raise TrainingError(
        f"engine.workers={engine.workers} with engine.use_gpu={str(engine.use_gpu).lower()} needs "
        f"{' and '.join(lacking)}; --set engine.workers=..., engine.use_gpu=false, or name a cluster in RAY_ADDRESS"
    )


# --- inside Ray's controller


class StopOnProgramError(UserCallback):
    """Ends the run on errors that a retry cannot fix; lost processes and connections are retried."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if not is_retryable(cause := _unwrapped(error)):
                raise cause


def is_retryable(cause: BaseException) -> bool:
    """Whether it is a lost process (Ray's own errors), a failed collective of the other ranks, or a storage error."""
    if isinstance(cause, MaskhandError):
        return cause.retryable
    if isinstance(cause, RuntimeError) and not isinstance(cause, ray.exceptions.RayError):
        return re.search("gloo|nccl|connection|socket|timed out", str(cause), re.IGNORECASE) is not None
    if isinstance(cause, OSError):
        return not isinstance(cause, FileNotFoundError) and cause.errno not in _LASTING
    return type(cause).__module__.partition(".")[0] == "ray"


# --- in the driver


def _tell_progress(on_progress: Callable[[int, dict[str, float]], None] | None, line: str) -> None:
    if on_progress is not None:
        row = json.loads(line)
        on_progress(int(row.pop("step")), row)


def _worker_environment(engine: EngineConfig) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(engine.threads_per_worker)}
    if not engine.use_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    if not _on_nodes():
        # Gloo would otherwise resolve the host name, which fails on many laptops.
        environment["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    return environment


def _on_nodes() -> bool:
    """Whether workers may be on several nodes: those of a cluster may join after the training has begun."""
    return bool(os.environ.get("RAY_ADDRESS")) or sum(node["Alive"] for node in ray.nodes()) > 1


def _root_cause(error: Exception) -> BaseException:
    """A worker's own exception, preferably not retryable or a MaskhandError; without any, the controller's."""
    failures = getattr(error, "worker_failures", None) or {0: getattr(error, "controller_failure", error)}
    causes = map(_unwrapped, failures.values())
    return min(causes, key=lambda cause: (is_retryable(cause), not isinstance(cause, MaskhandError)))


def _line(cause: BaseException, run_dir: Path) -> str:
    if isinstance(cause, OSError) and not isinstance(cause, MaskhandError):
        known = explained(cause, [run_dir])
        if known is not None:
            return known
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1] if isinstance(cause, ray.exceptions.RayError) else lines[0]}"


def _unwrapped(error: BaseException) -> BaseException:
    """The exception inside Ray's wrappers, which store it under different attributes."""
    for attribute in ("_base_exc", "cause", "__cause__"):
        inner = getattr(error, attribute, None)
        if isinstance(inner, BaseException) and not isinstance(error, ray.exceptions.RayActorError):
            return _unwrapped(inner)
    return error
