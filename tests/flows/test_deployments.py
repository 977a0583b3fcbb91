"""prefect.yaml on a real server: schedules make runs, a worker executes a training, its event starts an evaluation."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from maskhand.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TINY = [
    "engine.workers=1",
    "tokenizer_training.optim.steps=2",
    "tokenizer_training.optim.batch=8",
    "tokenizer_training.optim.warmup_steps=1",
    "tokenizer_training.optim.log_every=1",
    "training.optim.steps=2",
    "training.optim.batch=4",
    "training.optim.warmup_steps=1",
    "training.optim.log_every=1",
    "evaluate.iterations=[1]",
]


@dataclass(frozen=True)
class Api:
    """A server's API, asked as Prefect's clients ask: again after a 503, of a database that was locked."""

    url: str
    http: urllib3.PoolManager
    end_worker: Callable[[], None]

    @classmethod
    def at(cls, url: str, end_worker: Callable[[], None]) -> Api:
        again = urllib3.Retry(5, status_forcelist=[503], allowed_methods=None, backoff_factor=0.5)
        return cls(url, urllib3.PoolManager(retries=again, timeout=30), end_worker)

    def ask(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        answer = self.http.request(method, self.url + path, json=body)
        assert answer.status < 400, answer.data
        return json.loads(answer.data or b"null")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, assets: Path) -> Workspace:
    """Shards of a few synthetic hands, with sidecars."""
    from maskhand.annotate.keypoints import annotate_keypoints
    from maskhand.annotate.mano_targets import annotate_mano
    from maskhand.catalog import load_spec
    from maskhand.shards.build import build_shards
    from maskhand.synth.freihand_layout import write_freihand_synth

    root = tmp_path_factory.mktemp("workspace")
    home = Workspace(root, str(root / "shards"))
    write_freihand_synth(home.raw / "freihand_synth", train=4, evaluation=3, mocap=20, seed=1, workers=1)
    for split in ("training", "evaluation"):
        set_uri = home.shard_set(f"freihand_synth/{split}")
        build_shards(load_spec("freihand_synth"), str(home.raw / "freihand_synth"), split, set_uri)
        annotate_keypoints(set_uri, "litert-hand", assets)
        annotate_mano(set_uri)
    return home


@pytest.fixture(scope="module")
def api(workspace: Workspace) -> Iterator[Api]:
    """A server with all deployments and a worker."""
    from maskhand.pipelines import deployments, server

    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "MASKHAND_SHARDS"):
            patch.delenv(name, raising=False)
        patch.setenv("MASKHAND_WORKSPACE", str(workspace.root))
        with server.server(workspace, port, workspace.root / "server.log") as running:
            url = running.url
            patch.setenv("PREFECT_API_URL", url)
            assert deployments.deploy(workspace) == 0
            with ExitStack() as worker:
                api = Api.at(url, worker.close)
                leave_run(api, "train-maskhand", "PENDING")
                leave_run(api, "shard-datasets", "RUNNING")
                assert active_slots(api, "train-maskhand") == active_slots(api, "shard-datasets") == 1
                deployments.end_lost(url)
                worker.enter_context(server.worker(server.environment(workspace, url), workspace.root / "worker.log"))
                yield api


def leave_run(api: Api, deployment: str, state: str) -> None:
    """As a worker does that is killed: the run takes a place of its deployment."""
    (found,) = api.ask("/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
    run = api.ask(f"/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    for kind in dict.fromkeys(["PENDING", state]):
        api.ask(f"/flow_runs/{run['id']}/set_state", {"state": {"type": kind}})


def active_slots(api: Api, deployment: str) -> int:
    (found,) = api.ask("/deployments/filter", {"deployments": {"name": {"any_": [deployment]}}})
    return found["global_concurrency_limit"]["active_slots"]


def runs_of(api: Api, deployment: str, *states: str) -> list[dict[str, Any]]:
    body = {
        "deployments": {"name": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"any_": list(states)}}},
    }
    return api.ask("/flow_runs/filter", body)


def wait_for(found: Callable[[], list[dict[str, Any]]], seconds: float) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    while not (rows := found()) and time.monotonic() < deadline:
        time.sleep(1)
    return rows


def test_every_deployment_is_there(api: Api) -> None:
    names = {d["name"]: d for d in api.ask("/deployments/filter", {})}
    flows = {"shard-datasets", "annotate-shards", "train-vq-mano", "train-maskhand", "evaluate-maskhand"}
    assert set(names) == flows | {"reproduce-table", "re-evaluate", "predict-photos"}
    assert names["train-maskhand"]["global_concurrency_limit"]["limit"] == 1
    assert names["train-maskhand"]["concurrency_options"]["collision_strategy"] == "ENQUEUE"


@pytest.mark.parametrize(("deployment", "state"), [("train-maskhand", "PENDING"), ("shard-datasets", "RUNNING")])
def test_a_run_without_a_process_holds_no_place(api: Api, deployment: str, state: str) -> None:
    assert not runs_of(api, deployment, state)
    assert len(runs_of(api, deployment, "CRASHED")) == 1
    assert active_slots(api, deployment) == 0


def test_deploying_again_leaves_a_work_pool_as_it_is(api: Api, workspace: Workspace) -> None:
    """One for Kubernetes has a job template with secret, claim and image."""
    from maskhand.pipelines import deployments, server

    def pool() -> dict[str, Any]:
        return next(p for p in api.ask("/work_pools/filter", {}) if p["name"] == server.POOL)

    template = pool()["base_job_template"]
    template["variables"]["properties"]["env"]["default"] = {"SECRET_NAME": "maskhand-env"}
    api.ask(f"/work_pools/{server.POOL}", {"base_job_template": template}, method="PATCH")
    assert deployments.deploy(workspace) == 0
    assert pool()["base_job_template"]["variables"]["properties"]["env"]["default"] == {"SECRET_NAME": "maskhand-env"}


def test_the_weekly_evaluation_really_is_scheduled(api: Api) -> None:
    scheduled = wait_for(lambda: runs_of(api, "evaluate-maskhand", "SCHEDULED"), 90)
    assert scheduled, "no run was scheduled: the sign of an SQLAlchemy that Prefect does not work with"
    assert scheduled[0]["auto_scheduled"]


def test_a_training_is_executed_and_its_model_evaluated(api: Api, workspace: Workspace) -> None:
    from maskhand.pipelines import deployments

    parameters = [f"overrides={json.dumps(TINY)}", "recipe=tiny"]
    assert deployments.run_deployment(workspace, "train-maskhand", parameters, watch=True) == 0
    (run,) = runs_of(api, "train-maskhand", "COMPLETED")
    assert run["parameters"]["overrides"] == TINY
    (bundle,) = workspace.runs.glob("transformer-tiny-*/export/bundle.json")
    assert json.loads(bundle.read_text())["sha256"]

    started = wait_for(lambda: runs_of(api, "evaluate-maskhand", "COMPLETED", "FAILED", "CRASHED"), 300)
    assert [r["state"]["type"] for r in started] == ["COMPLETED"], "the event maskhand.model.registered starts it"
    assert started[0]["parameters"]["model"] == "models:/maskhand/1"


def test_a_mistyped_parameter_is_refused(api: Api, workspace: Workspace) -> None:
    from maskhand.pipelines import deployments, server

    assert deployments.run_deployment(workspace, "train-maskhand", ["recipie=tiny"], watch=False) != 0
    with pytest.raises(server.ServerError, match="parameter 'recipe': expected KEY=VALUE"):
        deployments.run_deployment(workspace, "train-maskhand", ["recipe"], watch=False)
    with pytest.raises(
        server.ServerError, match=r"'train-maskand' .* did you mean 'train-maskhand'. there are annotate-"
    ):
        deployments.run_deployment(workspace, "train-maskand", [], watch=False)


def test_why_a_watched_run_failed_is_said(api: Api, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    from maskhand.pipelines import deployments

    assert deployments.run_deployment(workspace, "train-vq-mano", ["recipe=tinny"], watch=True) == 1
    assert "recipe 'tinny' not found; did you mean 'tiny'" in capsys.readouterr().err


def test_a_run_that_ends_with_its_worker_is_marked(api: Api, workspace: Workspace) -> None:
    """Else it stays `Running`, and the next training waits minutes for its slot. The last one that has a worker."""
    from maskhand.pipelines import deployments

    long = json.dumps([*TINY, "tokenizer_training.optim.steps=100000"])
    assert deployments.run_deployment(workspace, "train-vq-mano", [f"overrides={long}"], watch=False) == 0
    assert wait_for(lambda: runs_of(api, "train-vq-mano", "RUNNING"), 300)
    api.end_worker()
    assert runs_of(api, "train-vq-mano", "CRASHED") and not runs_of(api, "train-vq-mano", "RUNNING")


def test_a_port_that_is_taken_is_named(workspace: Workspace) -> None:
    from maskhand.pipelines import server

    with socket.create_server((server.HOST, 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(server.ServerError, match=f"port {port} cannot be used .*--port"),
            server.server(workspace, port, workspace.root / "other.log"),
        ):
            pass
