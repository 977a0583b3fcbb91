"""A pipeline of every stage on a few hands, as a program that `faults.py` may kill, and what it makes.

python infra/local_cluster/small_pipeline.py WORKSPACE      # the stages of `maskhand quickstart`, without Prefect
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

SYNTHETIC = "freihand_synth"
SETS = (f"{SYNTHETIC}/training", f"{SYNTHETIC}/evaluation")
STAGES = ("synthetic images", "shards", "annotation", "VQ-MANO", "transformer, evaluation")
"""In the order in which they are announced, as `[1] ...`."""
SIZES = {"hands": 16, "evaluation-hands": 8, "mocap-poses": 64}
CLOCK = ("train/samples_per_s", "time/")
"""Beginnings of the metrics that no two runs share."""


def overrides() -> list[str]:
    """Of the recipe `tiny`: both trainings on two workers, a checkpoint every second step."""
    short = {"batch": 8, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 2}
    stages = {"tokenizer_training": 6, "training": 8}
    keys = {f"{stage}.optim.{key}": value for stage in stages for key, value in short.items()}
    keys |= {f"{stage}.optim.steps": steps for stage, steps in stages.items()}
    keys |= {"engine.workers": 2, "evaluate.iterations": [1], "training.ema_decay": 0.5}
    return [f"{key}={value}" for key, value in keys.items()]


def quickstart(workspace: Path) -> list[str]:
    """Words after `maskhand`: the same with Prefect."""
    sizes = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    settings = [word for override in overrides() for word in ("--set", override)]
    return ["quickstart", *sizes, "-r", "tiny", *settings, "-w", str(workspace)]


def run(workspace: Path) -> None:
    """Every stage, each by the function that subcommands and flows call; what is there already is found and kept."""
    from maskhand.cluster.session import ray_session
    from maskhand.progress import silent
    from maskhand.steps import annotation, data, evaluate, synthetic, train
    from maskhand.workspace import Workspace

    home = Workspace.at(workspace)
    with ray_session():
        stage(1)
        synthetic.synthesize(home, *SIZES.values(), seed=0, progress=silent)
        stage(2)
        for name in SETS:
            data.shard(home, *name.split("/"), None, silent)
        stage(3)
        for name in SETS:
            annotation.annotate_mano(home, name, silent)
            annotation.annotate_keypoints(home, name, "litert-hand", silent)
        stage(4)
        tokenizer = train.train_tokenizer(home, "tiny", overrides(), "", silent)
        stage(5)
        model = train.train_transformer(home, "tiny", overrides(), tokenizer.folder, "", silent)
        evaluate.evaluate(home, model.folder, [SETS[1]], silent)


def stage(number: int) -> None:
    print(f"[{number}] {STAGES[number - 1]}", flush=True)


def results(workspace: Path, shards_uri: str) -> dict[str, str]:
    """Name -> sha256 of all that a run makes and another one must make alike: shards, weights, curves, errors."""
    from maskhand import storage
    from maskhand.cluster.run_folder import METRICS
    from maskhand.kept_json import read_steps

    found = {
        f"shards/{uri.removeprefix(shards_uri)}": storage.sha256(uri)
        for uri in storage.list_uris(storage.join(shards_uri, SYNTHETIC))
    }
    for pattern in ("runs/*/export/*.pt", "runs/*/export/calibration.json"):
        for path in workspace.glob(pattern):
            found[str(path.relative_to(workspace))] = storage.sha256(path)
    for path in workspace.glob("reports/*/*/*/samples.parquet"):  # the report is named after the model's folder, too
        found["/".join(path.parts[-3:])] = storage.sha256(path)
    for run_dir in filter(Path.is_dir, (workspace / "runs").iterdir()):
        rows = [{k: v for k, v in row.items() if not k.startswith(CLOCK)} for row in read_steps(run_dir / METRICS)]
        found[f"curves of {run_dir.name}"] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return found


if __name__ == "__main__":
    run(Path(sys.argv[1]))
