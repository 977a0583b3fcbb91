"""`maskhand predict --workers N` on pictures: hands per second and core, and what a second worker is worth.

    python benchmarks/predict_scale.py FOLDER [--pictures 32] [--workers 1 2] [--method refine]

FOLDER holds pictures with hands, such as WORKSPACE/raw/freihand_synth/evaluation/rgb. The counts of workers take turns
in one Ray session, each with a folder of its own, so that a busy machine slows all alike; the first run of the session
loads models and is not counted. CPU seconds are those of all processes below this one, and tell what a core does in a
second whatever else runs. At the end the shards of all runs are compared: they must be the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from maskhand.cluster.session import ray_session
from maskhand.predict import METHODS
from maskhand.predict.inputs import PICTURE_SUFFIXES
from maskhand.predict.shards import HANDS
from maskhand.progress import silent
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.predict_shards import predict_by_workers
from maskhand.steps.prepare_predict_shards import prepare_shard_run
from maskhand.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--method", choices=METHODS, default="refine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch, "pictures")
        pictures.mkdir()
        found = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
        for path in found[: options.pictures]:
            shutil.copy(path, pictures)
        runs: dict[int, list[tuple[float, float]]] = defaultdict(list)
        digests: set[str] = set()
        hands = 0
        with ray_session():
            for turn in range(options.turns + 1):
                for workers in (
                    options.workers if turn else options.workers[-1:]
                ):  # the first time in every worker's process
                    out = Path(scratch, f"out-{turn}-{workers}")
                    begun_s, cpu_s = time.perf_counter(), _cpu_s()
                    run = prepare_shard_run(Workspace.at(), [pictures], str(out), GivenOptions(method=options.method))
                    receipt = predict_by_workers(run, silent, workers=workers)
                    if turn:
                        runs[workers].append((time.perf_counter() - begun_s, _cpu_s() - cpu_s))
                    hands = receipt.hands
                    digests.add(_digest(out / HANDS))
    print(
        f"{hands} hands of {min(len(found), options.pictures)} pictures, {os.cpu_count()} logical cores, "
        f"{options.method}"
    )
    print("| workers | seconds | hands a second | hands a CPU second |\n|---|---|---|---|")
    for workers, times in runs.items():
        seconds, cpu = (sum(values) / len(values) for values in zip(*times, strict=True))
        print(f"| {workers} | {seconds:.1f} | {hands / seconds:.2f} | {hands / cpu:.2f} |")
    first, last = (sum(s for s, _ in runs[workers]) for workers in (options.workers[0], options.workers[-1]))
    print(f"{options.workers[-1]} workers do {first / last:.2f} times as much as {options.workers[0]}")
    print("the same bytes" if len(digests) == 1 else f"{len(digests)} DIFFERENT RESULTS")


def _cpu_s() -> float:
    """CPU seconds so far of this process and all that it started, Linux."""
    children: dict[int, list[int]] = defaultdict(list)
    spent: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            children[int(fields[1])].append(int(entry.name))
            spent[int(entry.name)] = int(fields[11]) + int(fields[12])
    waiting, total = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        total += spent.get(pid, 0)
        waiting += children[pid]
    return total / os.sysconf("SC_CLK_TCK")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
