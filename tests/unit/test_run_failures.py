"""Errors of a training run that are retried, resources, and the metrics file."""

from __future__ import annotations

import errno

import pytest
import ray
import ray.train
from ray.train import UserCallback

from maskhand.cluster import train
from maskhand.cluster.journal import SharedFolder
from maskhand.cluster.run_folder import METRICS, TrainingError, tail
from maskhand.cluster.train import StopOnProgramError, _root_cause, is_retryable, places
from maskhand.cluster.worker import MetricsFile
from maskhand.config import ConfigError, EngineConfig
from maskhand.kept_json import KeptFileError, read_steps
from maskhand.steps.training_checks import worker_counts
from maskhand.storage import StorageError
from support.training_fakes import small_recipe

GLOO = "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:20623: Connection reset by peer"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ray.exceptions.RayActorError(), True),
        (RuntimeError(GLOO), True),
        (ConnectionResetError("peer"), True),
        (OSError("stale file handle"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (FileNotFoundError("no such shard"), False),
        (StorageError("the store does not answer"), True),
        (ConfigError("unknown key"), False),
        (RuntimeError("size mismatch for encoder.weight"), False),
        (KeyError("mano"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_retryable_errors_are_retried(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable
    stop: UserCallback = StopOnProgramError()
    if retryable:
        stop.after_exception(None, {0: error})
    else:
        with pytest.raises(type(error)):
            stop.after_exception(None, {0: RuntimeError(GLOO), 1: error})
    failed = ray.train.WorkerGroupError("failed", {0: RuntimeError(GLOO), 1: error})
    assert _root_cause(failed) is error or retryable
    assert is_retryable(_root_cause(failed)) is retryable


def test_missing_resources_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOCAL_CPUS", 6)
    assert places(EngineConfig(workers=6), [6]) == [6]
    assert places(EngineConfig(workers=8), [8, 4, 2]) == [4, 2]
    with pytest.raises(TrainingError, match=r"needs 8 CPUs \(6 available\)"):
        places(EngineConfig(workers=8), [8])
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert places(EngineConfig(workers=4), [4]) == [4]
    with pytest.raises(TrainingError, match=r"engine.workers=8 .* needs 8 CPUs \(4 available\); --set engine.workers"):
        places(EngineConfig(workers=8), [8])
    with pytest.raises(TrainingError, match=r"use_gpu=true needs 2 GPUs \(0 available\)"):
        places(EngineConfig(use_gpu=True), [2])
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert places(EngineConfig(workers=8, use_gpu=True), [8, 4]) == [8, 4], "a cluster may grow"


def test_a_training_runs_on_the_numbers_of_workers_that_share_it_out_evenly() -> None:
    shares = ("training.optim.batch=12", "data.shard_streams=16", "engine.workers=4")
    recipe = small_recipe(*shares, "engine.min_workers=1")
    assert worker_counts("transformer", recipe) == [4, 2, 1]
    assert worker_counts("transformer", small_recipe(*shares)) == [4]
    assert worker_counts("tokenizer", small_recipe("engine.workers=8", "engine.min_workers=2")) == [8, 4, 2]
    with pytest.raises(ConfigError, match=r"data\.shard_streams=16 does not divide over engine\.workers=3"):
        worker_counts("transformer", small_recipe(*shares, "engine.workers=3"))


def test_metrics_of_a_restarted_run_count_once(tmp_path) -> None:
    assert read_steps(tmp_path / METRICS) == []
    lines = ['{"step": 2, "a": 1.0}', '{"step": 4, "a": 2.0}', '{"step": 4, "a": 3.0}', '{"step": 6, "a": 4.0}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert [(row["step"], row["a"]) for row in read_steps(tmp_path / METRICS)] == [(2, 1.0), (4, 3.0), (6, 4.0)]


def test_an_incomplete_line_is_written_again(tmp_path) -> None:
    path = tmp_path / METRICS
    path.write_text('{"step": 2, "a": 1.0}\n{"step": 4, "a": 2.')
    assert [row["step"] for row in read_steps(path)] == [2]
    seen: list[str] = []
    with tail(path, seen.append):
        MetricsFile(SharedFolder(tmp_path), None)(4, {"a": 3.0})
    assert [(row["step"], row["a"]) for row in read_steps(path)] == [(2, 1.0), (4, 3.0)]
    assert seen == ['{"step": 4, "a": 3.0}']
    path.write_text('{"step": 2}\n{"step": 4, "a\n{"step": 6}\n')
    with pytest.raises(KeptFileError, match=r"metrics\.jsonl, line 2: expected a JSON record"):
        read_steps(path)
