"""Which errors of a training run are worth another try."""

from __future__ import annotations

import pytest
import ray
from ray.train import UserCallback

from maskhand.cluster.run_folder import read_metrics
from maskhand.cluster.train import _may_heal, _StopOnProgramError
from maskhand.config import ConfigError

GLOO = "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:20623: Connection reset by peer"


@pytest.mark.parametrize(
    ("error", "heals"),
    [
        (ray.exceptions.RayActorError(), True),
        (RuntimeError(GLOO), True),
        (ConnectionResetError("peer"), True),
        (OSError("stale file handle"), True),
        (FileNotFoundError("no such shard"), False),
        (ConfigError("unknown key"), False),
        (RuntimeError("size mismatch for encoder.weight"), False),
        (KeyError("mano"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_what_repetition_mends_is_repeated(error: Exception, heals: bool) -> None:
    assert _may_heal(error) is heals
    stop: UserCallback = _StopOnProgramError()
    if heals:
        stop.after_exception(None, {0: error})
    else:
        with pytest.raises(type(error)):
            stop.after_exception(None, {0: RuntimeError(GLOO), 1: error})


def test_metrics_of_a_restarted_run_count_once(tmp_path) -> None:
    assert read_metrics(tmp_path) == []
    lines = ['{"step": 2, "a": 1.0}', '{"step": 4, "a": 2.0}', '{"step": 4, "a": 3.0}', '{"step": 6, "a": 4.0}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert [(row["step"], row["a"]) for row in read_metrics(tmp_path)] == [(2, 1.0), (4, 3.0), (6, 4.0)]
