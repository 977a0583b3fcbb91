"""Kill parts of a small pipeline while it works, run it again, and compare what it makes with an undisturbed run.

    python infra/local_cluster/faults.py                    # 20 random kills, with MLflow and S3 servers: an evening
    python infra/local_cluster/faults.py --kills 4 --plain  # without Prefect and the servers
    python infra/local_cluster/faults.py --keep FOLDER      # the same command goes on where it was stopped

Every kill is a SIGKILL for a process of this script's own. Prints the fault table: injected; in place: the command
went on; after rerun: it ended, and the same command went on; lost: the results are not the same, bit for bit. Exit code
0 when nothing was lost.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

CODE = Path(__file__).parents[2]
sys.path[:0] = [str(CODE), str(CODE / "tests")]

from killing import PARTS, PLAIN, Fault, Outcome, Site, end, endure, last_line, say  # noqa: E402
from servers import Place, mlflow  # noqa: E402
from small_pipeline import STAGES, quickstart, results  # noqa: E402
from support.s3_server import s3_server  # noqa: E402

KILLS_A_RUN = 4


def drawn(kills: int, parts: Sequence[str], dice: random.Random) -> list[Fault]:
    """All parts equally often, at random moments."""
    chosen = [part for _ in range(-(-kills // len(parts))) for part in dice.sample(list(parts), len(parts))][:kills]
    return [Fault(part, dice.randint(2, len(STAGES)), dice.random()) for part in chosen]


def measure(site: Site) -> tuple[dict[str, str], list[float]]:
    """The results of an undisturbed run, and the duration of each of its stages."""
    began_s: dict[int, float] = {}
    with site.running() as driver:
        while driver.poll() is None:
            if (stage := site.stage(0)) and stage not in began_s:
                began_s[stage] = time.monotonic()
            time.sleep(0.1)
    if driver.returncode:
        raise RuntimeError(f"the undisturbed run failed: {last_line(site.log)}; its log is {site.log}")
    times = [*(began_s.get(number, time.monotonic()) for number in range(1, len(STAGES) + 1)), time.monotonic()]
    return results(site.workspace, site.shards_uri), [after - before for before, after in itertools.pairwise(times)]


@contextmanager
def sites(root: Path, plain: bool) -> Iterator[Callable[[str], Site]]:
    """A function that makes the n-th site, on servers that all share unless they are plain."""
    with ExitStack() as parts:
        place, settings, bucket = Place(root), dict[str, str](), ""
        if not plain:
            for left in ("s3", "mlflow"):  # of a call that was stopped
                shutil.rmtree(root / left, ignore_errors=True)
            s3 = parts.enter_context(s3_server(root / "s3"))
            os.environ.update(s3.environment())
            settings = s3.environment() | {
                "MLFLOW_TRACKING_URI": parts.enter_context(mlflow(place, s3.environment(), s3.bucket))
            }
            bucket = s3.bucket
        made: list[Site] = []

        def make(name: str) -> Site:
            workspace, own = root / name, dict(settings)
            if bucket:
                own |= {
                    "MASKHAND_SHARDS": f"s3://{bucket}/{name}",
                    "MASKHAND_CHECKPOINTS": f"s3://{bucket}/{name}-runs",
                }
            shutil.rmtree(workspace, ignore_errors=True)
            take_assets(workspace)
            program = [str(Path(__file__).with_name("small_pipeline.py")), str(workspace)]
            command = [sys.executable, *(program if plain else ["-m", "maskhand.cli", *quickstart(workspace)])]
            # Ray would give its workers less of a busy machine than everybody else has.
            own |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
            environment = place.environment("driver", own)
            made.append(
                Site(workspace, own.get("MASKHAND_SHARDS", str(workspace / "shards")), command, environment,
                     root / f"{name}.log")
            )  # fmt: skip
            return made[-1]

        try:
            yield make
        finally:
            for process in (process for site in made for process in site.started):
                end(process)


def take_assets(workspace: Path) -> None:
    """The files of the keypoint detector, which are fetched once for all."""
    from maskhand.fetched_models import hand_models
    from maskhand.workspace import Workspace

    assets = Workspace.at().assets
    hand_models(assets)
    workspace.mkdir(parents=True, exist_ok=True)
    if not (workspace / "assets").exists():
        (workspace / "assets").symlink_to(assets, target_is_directory=True)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines in Markdown."""
    lines = ["| killed | injected | in place | after rerun | lost | left running |", "|---|---|---|---|---|---|"]
    rows = Counter[str](outcome.fault.part for outcome in outcomes)
    for part in [*(part for part in PARTS if part in rows), "all"]:
        of_part = [outcome for outcome in outcomes if part in (outcome.fault.part, "all")]
        in_place, lost = sum(o.in_place for o in of_part), sum(o.lost for o in of_part)
        counts = (len(of_part), in_place, len(of_part) - in_place, lost, sum(o.orphans for o in of_part))
        lines.append(f"| {part} | {' | '.join(map(str, counts))} |")
    return lines


def campaign(root: Path, kills: int, plain: bool, seed: int) -> list[Outcome]:
    """Some kills in each of as many workspaces as it takes; those that `root` has the outcomes of are not repeated."""
    outcomes = list[Outcome]()
    faults = drawn(kills, PLAIN if plain else tuple(PARTS), random.Random(seed))
    with sites(root, plain) as make:
        kept = root / "undisturbed.json"
        if not kept.exists():
            kept.write_text(json.dumps(measure(make("undisturbed"))))
        expected, stage_s = json.loads(kept.read_text())
        say("measured", f"undisturbed: {len(expected)} results, stages of {', '.join(f'{s:.0f} s' for s in stage_s)}")
        for number, first in enumerate(range(0, kills, KILLS_A_RUN), 1):
            mine = sorted(faults[first : first + KILLS_A_RUN], key=lambda fault: (fault.stage, fault.share))
            kept = root / f"outcomes-{number}.json"
            if kept.exists() and [outcome.fault for outcome in read_outcomes(kept)] == mine:
                outcomes += read_outcomes(kept)
                continue
            site = make(f"killed-{number}")
            found = endure(site, mine, stage_s, random.Random(f"{seed}, {number}"))
            made = results(site.workspace, site.shards_uri)
            other = sorted(name for name in expected.keys() | made.keys() if expected.get(name) != made.get(name))
            say("compared", f"{len(made)} results, {len(other)} differ{': ' + ', '.join(other[:5]) if other else ''}")
            for outcome in found:
                outcome.lost = bool(other)
            kept.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in found]))
            outcomes += found
    return outcomes


def read_outcomes(file: Path) -> list[Outcome]:
    """What an earlier call of this script has kept."""
    return [Outcome(**row | {"fault": Fault(**row["fault"])}) for row in json.loads(file.read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--plain", action="store_true", help="without Prefect, MLflow's server and S3")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="a folder that stays: what is finished in it is not done again",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    folder = options.keep or Path(tempfile.mkdtemp(prefix="mh-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = campaign(folder, options.kills, options.plain, options.seed)
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(table(outcomes)))
    raise SystemExit(1 if any(outcome.lost for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
