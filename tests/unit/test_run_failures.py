"""Which errors of a training run are worth another try."""

from __future__ import annotations

import pytest
import ray
import ray.train
from ray.train import UserCallback

from maskhand.cluster import train
from maskhand.cluster.run_folder import TrainingError, follow, read_metrics
from maskhand.cluster.train import _is_retryable, _root_cause, _StopOnProgramError, _ToFileAnd, check_resources
from maskhand.config import ConfigError, EngineConfig
from maskhand.storage import StorageError

GLOO = "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:20623: Connection reset by peer"


@pytest.mark.parametrize(
    ("error", "heals"),
    [
        (ray.exceptions.RayActorError(), True),
        (RuntimeError(GLOO), True),
        (ConnectionResetError("peer"), True),
        (OSError("stale file handle"), True),
        (FileNotFoundError("no such shard"), False),
        (StorageError("the store does not answer"), True),
        (ConfigError("unknown key"), False),
        (RuntimeError("size mismatch for encoder.weight"), False),
        (KeyError("mano"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_what_repetition_mends_is_repeated(error: Exception, heals: bool) -> None:
    assert _is_retryable(error) is heals
    stop: UserCallback = _StopOnProgramError()
    if heals:
        stop.after_exception(None, {0: error})
    else:
        with pytest.raises(type(error)):
            stop.after_exception(None, {0: RuntimeError(GLOO), 1: error})
    failed = ray.train.WorkerGroupError("failed", {0: RuntimeError(GLOO), 1: error})
    assert _root_cause(failed) is error or heals
    assert _is_retryable(_root_cause(failed)) is heals


def test_more_than_this_machine_has_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "LOCAL_CPUS", 6)
    check_resources(EngineConfig(workers=6))
    with pytest.raises(TrainingError, match=r"needs 8 CPUs \(there are 6\)"):
        check_resources(EngineConfig(workers=8))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    check_resources(EngineConfig(workers=4))
    with pytest.raises(TrainingError, match=r"engine.workers=8 .* needs 8 CPUs \(there are 4\); --set engine.workers"):
        check_resources(EngineConfig(workers=8))
    with pytest.raises(TrainingError, match=r"use_gpu=true needs 2 GPUs \(there are 0\)"):
        check_resources(EngineConfig(use_gpu=True))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    check_resources(EngineConfig(workers=8, use_gpu=True))  # a cluster may grow


def test_metrics_of_a_restarted_run_count_once(tmp_path) -> None:
    assert read_metrics(tmp_path) == []
    lines = ['{"step": 2, "a": 1.0}', '{"step": 4, "a": 2.0}', '{"step": 4, "a": 3.0}', '{"step": 6, "a": 4.0}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert [(row["step"], row["a"]) for row in read_metrics(tmp_path)] == [(2, 1.0), (4, 3.0), (6, 4.0)]


def test_a_line_written_by_halves_is_written_again(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 1.0}\n{"step": 4, "a": 2.')
    assert [row["step"] for row in read_metrics(tmp_path)] == [2]
    told: list[int] = []
    with follow(path, lambda step, _: told.append(step)):
        _ToFileAnd(None, path)(4, {"a": 3.0})
    assert [(row["step"], row["a"]) for row in read_metrics(tmp_path)] == [(2, 1.0), (4, 3.0)] and told == [4]
    path.write_text('{"step": 2}\n{"step": 4, "a\n{"step": 6}\n')
    with pytest.raises(TrainingError, match=r"metrics\.jsonl, line 2: expected a JSON record"):
        read_metrics(tmp_path)
