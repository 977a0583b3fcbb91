"""Killing parts of a running command, by process id, and running it again until it succeeds."""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from small_pipeline import STAGES

PARTS = {
    "driver": "",
    "worker": r"^ray::(?!.*Agent)",
    "raylet": r"/raylet/raylet ",
    "GCS": r"/gcs/gcs_server ",
    "Prefect server": r"prefect\.server\.api\.server:create_app",
    "MLflow server, 20 s": r"mlflow.*server|mlflow\.server",
    "MLflow server, for good": r"mlflow.*server|mlflow\.server",
    "S3 server, 20 s": r"weed .*server ",
}
"""What may be killed, and how the command lines of its processes look."""
PLAIN = ("worker", "driver", "raylet", "GCS")
OUTAGE_S = 20.0
SILENT_S = 900.0
"""A command that shows no sign of life for so long is ended: it counts as one that had to be run again."""
ORPHANS_S = 90.0
"""Time in which what a killed driver had started must be gone: Ray's agents try for a minute to tell their dead GCS."""
LOOK_S = 0.5


@dataclass(frozen=True)
class Fault:
    part: str
    stage: int
    """Number of the stage in which it happens, from 1."""
    share: float
    """When, as a share of that stage's time in the undisturbed run."""


@dataclass
class Outcome:
    """What came of a fault."""

    fault: Fault
    in_place: bool = True
    lost: bool = False
    orphans: int = 0


@dataclass
class Site:
    """One workspace, and the processes that work on it."""

    workspace: Path
    shards_uri: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    started: list[psutil.Popen] = field(default_factory=list)
    """Servers that were started again."""
    gone: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)
    """Servers that come back when the command has ended."""

    @contextmanager
    def running(self) -> Iterator[psutil.Popen]:
        """The command at work; it does not outlive the block."""
        with self.log.open("ab") as output:
            driver = psutil.Popen(self.command, env=self.environment, stdout=output, stderr=output, cwd="/")
        try:
            yield driver
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                driver.kill()
            driver.wait()

    def stage(self, begin: int) -> int:
        """The last stage that was announced after position `begin` of the log; 0 before the first."""
        said = re.findall(r"^\[(\d)\] ", self.log.read_bytes()[begin:].decode(errors="replace"), re.MULTILINE)
        return int(said[-1]) if said else 0

    def activity(self) -> tuple[int, int]:
        """Something that changes while work is done."""
        files = [self.log, *self.workspace.glob("runs/*/metrics.jsonl")]
        return len(files), sum(file.stat().st_size for file in files if file.exists())

    def bring_back(self, command: list[str], environment: dict[str, str]) -> None:
        with self.log.with_name("servers.log").open("ab") as output:
            self.started.append(
                psutil.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True, cwd="/")
            )


def words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()) + " "
    return ""


def strike(fault: Fault, driver: psutil.Popen, site: Site, dice: random.Random) -> bool:
    """Kill the part, if it is there."""
    of_driver = fault.part in (*PLAIN, "Prefect server")
    try:
        if fault.part == "driver":
            driver.kill()
            return True
        family = psutil.Process(driver.pid if of_driver else os.getpid()).children(recursive=True)
        found = [process for process in family if re.search(PARTS[fault.part], words(process))]
        if not found:
            return False
        if of_driver:
            dice.choice(found).kill()
            return True
        command, environment = found[0].cmdline(), found[0].environ()  # the first started the others
    except psutil.NoSuchProcess:  # it has just ended
        return False
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, 30)
    if fault.part.endswith("for good"):
        site.gone.append((command, environment))
    else:
        threading.Timer(OUTAGE_S, site.bring_back, (command, environment)).start()
    return True


def endure(site: Site, faults: Sequence[Fault], stage_s: Sequence[float], dice: random.Random) -> list[Outcome]:
    """Run the command until it succeeds, with these faults, in their order, on the way."""
    waiting, outcomes = list(faults), list[Outcome]()
    with ExitStack() as orphans:  # they may be there while the command runs again
        for attempt in range(1, len(faults) + 5):
            struck, family = list[Outcome](), dict[int, psutil.Process]()
            with site.running() as driver:
                disturb(site, driver, waiting, struck, family, stage_s, dice)
            outcomes += struck
            for command, environment in site.gone:
                site.bring_back(command, environment)
            site.gone.clear()
            if driver.returncode == 0:
                return outcomes
            say("ended", f"with exit code {driver.returncode} ({attempt}. time): {last_line(site.log)}")
            last = struck[-1] if struck else None
            if last is not None:
                last.in_place = False
            orphans.callback(end_orphans, list(family.values()), time.monotonic() + ORPHANS_S, last)
    raise RuntimeError(f"the command does not succeed any more; its log is {site.log}")


def disturb(
    site: Site,
    driver: psutil.Popen,
    waiting: list[Fault],
    struck: list[Outcome],
    family: dict[int, psutil.Process],
    stage_s: Sequence[float],
    dice: random.Random,
) -> None:
    """Move faults from `waiting` to `struck` as they happen, until the command ends; `family`: all that it started."""
    begin, seen, since_s = site.log.stat().st_size, site.activity(), time.monotonic()
    stage, stage_at_s = 0, since_s
    while driver.poll() is None:
        time.sleep(LOOK_S)
        now_s = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {p.pid: p for p in psutil.Process(driver.pid).children(recursive=True)}
        if (active := site.activity()) != seen:
            seen, since_s = active, now_s
        if (here := site.stage(begin)) != stage:
            stage, stage_at_s = here, now_s
        due = waiting and (stage, now_s - stage_at_s) >= (waiting[0].stage, waiting[0].share * stage_s[stage - 1])
        if due and strike(waiting[0], driver, site, dice):
            say("killed", f"{waiting[0].part}, in stage {stage} ({STAGES[stage - 1]})")
            struck.append(Outcome(waiting.pop(0)))
        if now_s - since_s > SILENT_S:
            say("silent", f"nothing happens for {SILENT_S:g} s: the command is ended")
            driver.kill()


def end(process: psutil.Process) -> None:
    """SIGKILL for a process and all below it; for one that has ended already, nothing."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def end_orphans(family: list[psutil.Process], deadline_s: float, outcome: Outcome | None) -> None:
    """What a command had started and did not end with it by the deadline is counted, and ended."""
    _, left = psutil.wait_procs(family, max(0.0, deadline_s - time.monotonic()))
    for process in left:
        say("orphan", words(process)[:120])
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if outcome is not None:
        outcome.orphans = len(left)


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""


def say(what: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what:<8} {text}", flush=True)
