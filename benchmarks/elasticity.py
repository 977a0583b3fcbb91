"""One training on other numbers of workers, one after the other, beside an undisturbed one: the losses of both.

    python benchmarks/elasticity.py SHARDS [--workers 2 1 4] [--steps 60]    # SHARDS: as the quickstart leaves them

Each part is `maskhand train transformer`, interrupted (SIGINT) once the run has reached its share of the steps; the
next one, on another number of workers, goes on from the last checkpoint. The undisturbed run has the first number
throughout. Prints a table of the losses, the first step of each part, and the largest relative difference.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from maskhand.cluster.run_folder import METRICS
from maskhand.kept_json import read_steps

CODE = Path(__file__).parents[1]
CHECKPOINT_EVERY = 5
LIMIT_S = 3600.0


def command(workers: int, steps: int) -> list[str]:
    """A training of the quickstart's recipe on fewer hands a step, without validation."""
    keys = {
        "engine.workers": workers,
        "training.optim.steps": steps,
        "training.optim.batch": 16,
        "training.optim.warmup_steps": 5,
        "training.optim.log_every": 1,
        "training.optim.checkpoint_every": CHECKPOINT_EVERY,
        "training.validate_every": 0,
        "data.posed_hands": 0,
    }
    settings = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "maskhand.cli", "train", "transformer", "-r", "quick", *settings]


def losses(workspace: Path) -> dict[int, float]:
    """Step -> loss of the one training of a workspace; a step that was repeated counts as it was last."""
    return {
        int(row["step"]): row["train/loss"]
        for run in workspace.glob("runs/transformer-*")
        for row in read_steps(run / METRICS)
    }


def train(workspace: Path, environment: dict[str, str], workers: int, steps: int, stop: int) -> str:
    """Train until step `stop`; what the command said. Raises RuntimeError where it ends otherwise."""
    log = workspace / "log.txt"
    workspace.mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command(workers, steps),
            env=environment | {"MASKHAND_WORKSPACE": str(workspace)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + LIMIT_S
        while process.poll() is None and time.monotonic() < deadline_s:
            if stop < steps and max(losses(workspace), default=0) >= stop:
                process.send_signal(signal.SIGINT)
                process.wait(120)
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    if stop == steps and process.returncode:
        raise RuntimeError(f"the training with {workers} workers failed:\n{log.read_text()[-2000:]}")
    return log.read_text()


def table(whole: dict[int, float], parts: dict[int, float], workers_at: dict[int, int], every: int) -> list[str]:
    """Lines in Markdown."""
    lines = ["| step | workers | undisturbed | elastic | difference |", "|---|---|---|---|---|"]
    for step in sorted(whole):
        if step == 1 or step % every == 0:
            apart = parts[step] / whole[step] - 1
            lines.append(f"| {step} | {workers_at[step]} | {whole[step]:.6f} | {parts[step]:.6f} | {apart:+.1e} |")
    return lines


def measure(shards: Path, root: Path, workers: Sequence[int], steps: int) -> list[str]:
    own = {"PYTHONPATH": str(CODE), "MASKHAND_SHARDS": str(shards), "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | own
    train(root / "whole", environment, workers[0], steps, steps)
    whole, workers_at = losses(root / "whole"), dict[int, int]()
    stops = [steps * number // len(workers) for number in range(1, len(workers) + 1)]
    for count, stop in zip(workers, stops, strict=True):
        begun = max(losses(root / "parts"), default=0)
        train(root / "parts", environment, count, steps, stop)
        first = begun // CHECKPOINT_EVERY * CHECKPOINT_EVERY + 1
        print(f"{count} workers: steps {first} to {max(losses(root / 'parts'))}", flush=True)
        workers_at |= dict.fromkeys(range(first, steps + 1), count)
    parts = losses(root / "parts")
    if sorted(parts) != sorted(whole):
        raise RuntimeError(f"steps are missing: {sorted(whole.keys() ^ parts.keys())}")
    largest = max(abs(parts[step] / whole[step] - 1) for step in whole)
    told = f"largest relative difference of {steps} losses: {largest:.1e}; of {workers[0]} workers alone: "
    alike = sum(1 for _ in itertools.takewhile(lambda step: parts[step] == whole[step], sorted(whole)))
    return [
        *table(whole, parts, workers_at, max(1, steps // 12)),
        "",
        f"{told}the first {alike} steps are alike, bit for bit",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards", type=Path, help="folder with the shard sets of the quickstart")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 1, 4], help="of each part")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mh-") as folder:
        print("\n".join(measure(options.shards.resolve(), Path(folder), options.workers, options.steps)))


if __name__ == "__main__":
    main()
