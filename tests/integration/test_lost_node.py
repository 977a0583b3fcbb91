"""A cluster of three nodes loses one in the middle of a training: the other goes on with one worker."""

from __future__ import annotations

import importlib
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

import pytest

from maskhand.cluster.checkpoints import Checkpoints, LastCheckpoint
from maskhand.kept_json import read_steps

ROOT = Path(__file__).parents[2]
HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")
LOST_AFTER = 8
DRIVER = f"""
import json, sys
from dataclasses import replace
from pathlib import Path
import test_ray_training as here
job, folder = here.Job(here._recipe()), Path(sys.argv[1])
with here.sent_along():
    here._fit(replace(job, stop_at={LOST_AFTER + 1}), folder, counts=(2, 1))
alone, _ = here._alone(job, folder / "alone")
(folder / "alone.json").write_text(json.dumps([row["train/loss"] for row in alone.values()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_goes_on_without_a_node_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "infra" / "local_cluster"))
    servers, run = importlib.import_module("servers"), importlib.import_module("run")
    place, token = servers.Place(tmp_path), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    address, metrics = f"{HEAD}:6379", tmp_path / "runs" / "run" / "metrics.jsonl"
    driver = {**token, "RAY_ADDRESS": address, "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{ROOT}/tests/integration"}

    def steps_done() -> int:
        return max((int(row["step"]) for row in read_steps(metrics)), default=0)

    with (
        tempfile.TemporaryDirectory(prefix="mh-", dir="/tmp") as session,  # a socket's path has at most 107 bytes
        servers.ray_node(place, "head", HEAD, 0, token, Path(session)),
        servers.ray_node(place, "node1", NODES[0], 1, token, head=address) as node1,
        servers.ray_node(place, "node2", NODES[1], 1, token, head=address) as node2,
        place.part("driver", [sys.executable, "-c", DRIVER, str(tmp_path / "runs")], driver) as part,
    ):
        servers.wait_until(lambda: steps_done() >= LOST_AFTER, part)
        lost = run.node_that_trains([node1, node2])
        assert lost is not None and lost.kill() > 1
        ended_s = time.monotonic() + 300
        while part.process.poll() is None and time.monotonic() < ended_s:
            time.sleep(0.5)
        said = part.log.read_text()
        assert part.process.poll() == 0, said
    assert "no places for 2 workers came free" in said
    rows = read_steps(metrics)
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10, 12]
    undisturbed = json.loads((tmp_path / "runs" / "alone.json").read_text())
    assert [row["train/loss"] for row in rows] == pytest.approx(undisturbed, rel=1e-5)
    assert Checkpoints(str(metrics.parent)).last() == LastCheckpoint(step=12, workers=1)
    facts = json.loads((metrics.parent / "finished.json").read_text())
    assert facts["steps"] == 12 and facts["restarts"] >= 1
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps.count(2) == 1, "it went on from a checkpoint, not from the start"
