"""The cluster's topology on one machine: train through Prefect, kill a node in the middle, say what happened.

    python infra/local_cluster/run.py                       # from a checkout, with its environment
    python infra/local_cluster/run.py --keep /tmp/cluster   # its folder stays: logs, workspace, databases

No Docker, no Kubernetes, nothing outside this machine. Every node has a home and an environment of its own, the
cluster's token and no other secret; shards and MLflow's files are in S3. Ends with exit code 0 when the flow completed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

CODE = Path(__file__).parents[2]
sys.path[:0] = [str(CODE), str(CODE / "tests")]

from servers import Part, Place, lacking, mlflow, postgres, prefect, ray_node  # noqa: E402
from support.s3_server import s3_server  # noqa: E402

HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")
DEPLOYMENT = "train-maskhand/train-maskhand"
RUN_S = 3600.0


def recipe(steps: int) -> list[str]:
    """Overrides of the recipe `tiny`: both trainings on two workers, a checkpoint every five steps."""
    short = {"batch": 8, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 5}
    keys = {
        f"{stage}.optim.{key}": value for stage in ("tokenizer_training", "training") for key, value in short.items()
    }
    keys |= {"tokenizer_training.optim.steps": 5, "training.optim.steps": steps, "engine.workers": 2}
    return [f"{key}={value}" for key, value in keys.items()] + ["evaluate.iterations=[1]"]


def make_data(root: Path, shards_uri: str) -> None:
    """A few synthetic hands as shard sets in S3, with sidecars; needs no Ray."""
    from maskhand.annotate.keypoints import annotate_keypoints
    from maskhand.annotate.mano_targets import annotate_mano
    from maskhand.catalog import load_spec
    from maskhand.fetched_models import hand_models
    from maskhand.shards.build import build_shards
    from maskhand.synth.freihand_layout import write_freihand_synth
    from maskhand.workspace import Workspace

    home, assets = Workspace(root, shards_uri), Workspace.at().assets
    hand_models(assets)
    raw = home.raw / "freihand_synth"
    write_freihand_synth(raw, train=16, evaluation=4, mocap=64, seed=1, workers=1)
    for split in ("training", "evaluation"):
        uri = home.shard_set(f"freihand_synth/{split}")
        build_shards(load_spec("freihand_synth"), str(raw), split, uri)
        annotate_keypoints(uri, "litert-hand", assets)
        annotate_mano(uri)


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """The answer of a JSON API, POSTed to with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def steps_done(workspace: Path) -> int:
    """The last step that a transformer training has reported."""
    files = list((workspace / "runs").glob("transformer-*/metrics.jsonl"))
    lines = [line for file in files for line in file.read_text().splitlines() if line.endswith("}")]
    return max((json.loads(line)["step"] for line in lines), default=0)


def node_that_trains(nodes: list[Part]) -> Part | None:
    """A node on which a training worker runs now."""

    def trains(node: Part) -> bool:
        names = []
        for process in node.family():
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline()))
        return any("RayTrainWorker" in name for name in names)

    return next(filter(trains, nodes), None)


def watch(url: str, run_id: str, poll: Callable[[], None]) -> dict[str, Any]:
    """Call `poll` every second until the flow run has ended; its final state. Raises TimeoutError after RUN_S."""
    deadline_s = time.monotonic() + RUN_S
    while time.monotonic() < deadline_s:
        state = ask(f"{url}/flow_runs/{run_id}")["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        poll()
        time.sleep(1)
    raise TimeoutError(f"flow run {run_id} did not end within {RUN_S:g} s")


@contextmanager
def cluster(place: Place) -> Iterator[tuple[dict[str, str], list[Part], Path]]:
    """The driver's settings, the nodes that may be killed, and the shared workspace of a running cluster."""
    workspace = place.root / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        enter = parts.enter_context
        s3 = enter(s3_server(place.root / "s3"))
        say("S3", s3.endpoint)
        shards = f"s3://{s3.bucket}/v1"
        os.environ.update(s3.environment())
        make_data(workspace, shards)
        database = enter(postgres(place))
        say("Postgres", database.rpartition("@")[2] if database else "none: Prefect and MLflow keep SQLite")
        for lack in (lacks := lacking()):
            say("lacking", lack)
        tracking = enter(mlflow(place, s3.environment(), s3.bucket, None if lacks else database))
        say("MLflow", f"{tracking}, files in s3://{s3.bucket}/mlflow")
        api = enter(prefect(place, database))
        say("Prefect", api)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(20)}
        enter(ray_node(place, "head", HEAD, 0, token, place.root / "ray"))
        head = f"{HEAD}:6379"
        nodes = [enter(ray_node(place, f"node{i}", ip, 2, token, head=head)) for i, ip in enumerate(NODES, 1)]
        say("Ray", f"head {head}, nodes {', '.join(NODES)}; each with a home of its own and the token")
        settings = {
            **token, **s3.environment(), "RAY_ADDRESS": head, "PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": tracking,
            "PREFECT_HOME": str(place.root / "prefect-client"), "MASKHAND_WORKSPACE": str(workspace),
            "MASKHAND_SHARDS": shards,
        }  # fmt: skip
        deploy = [sys.executable, "-m", "maskhand.cli", "deploy"]
        subprocess.run(deploy, env=place.environment("driver", settings), check=True, cwd="/")
        command = [sys.executable, "-m", "maskhand.cli", "worker"]
        enter(place.part("worker", command, settings))
        yield settings, nodes, workspace


def train_and_kill(place: Place, steps: int) -> bool:
    """Run the deployment; kill a node that trains once a third of the steps are done. True when the flow completed."""
    with cluster(place) as (settings, nodes, workspace):
        api = settings["PREFECT_API_URL"]
        parameters = ["--param", "recipe=tiny", "--param", f"overrides={json.dumps(recipe(steps))}"]
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deployment", "run", DEPLOYMENT, *parameters]
        environment = place.environment("driver", settings)
        subprocess.run(command, env=environment, check=True, cwd="/", stdout=subprocess.DEVNULL)
        (run,) = ask(f"{api}/flow_runs/filter", {"deployments": {"name": {"any_": ["train-maskhand"]}}})
        killed: list[str] = []

        def kill_one_in_the_middle() -> None:
            done = steps_done(workspace)
            if not killed and done >= steps // 3 and (node := node_that_trains(nodes)) is not None:
                killed.append(node.name)
                say("killed", f"{node.name} ({node.kill()} processes) after step {done} of {steps}")

        state = watch(api, run["id"], kill_one_in_the_middle)
        say("flow", f"{state['type']}: {state['message'] or 'all is done'}")
        starts = [len(file.read_text().split()) for file in (workspace / "runs").glob("transformer-*/starts.txt")]
        say("training", f"{steps_done(workspace)} of {steps} steps, workers started {sum(starts)} times")
        bundles = list((workspace / "runs").glob("transformer-*/export/bundle.json"))
        say("model", str(bundles[0].parent) if bundles else "none")
        return state["type"] == "COMPLETED" and bool(killed) and bool(bundles)


def say(what: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what:<9} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a folder that is not deleted at the end")
    parser.add_argument("--steps", type=int, default=60, help="steps of the transformer")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    folder = options.keep or Path(tempfile.mkdtemp(prefix="mh-"))  # short: Ray's sockets have paths of 107 bytes
    folder.mkdir(parents=True, exist_ok=True)
    try:
        completed = train_and_kill(Place(folder), options.steps)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if completed else 1)


if __name__ == "__main__":
    main()
