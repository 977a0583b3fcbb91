"""The parts of infra/local_cluster: what a machine of it has, and what dies with it."""

from __future__ import annotations

import importlib
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from maskhand.recipe_files import load_recipe

FOLDER = Path(__file__).parents[2] / "infra" / "local_cluster"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("servers")


def test_a_machine_has_nothing_of_the_callers(servers: ModuleType, tmp_path: Path, monkeypatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "MASKHAND_MANO_DIR", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "the caller's")
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    for name, settings in (("node1", {"RAY_AUTH_TOKEN": "t"}), ("node2", {})):
        with servers.Place(tmp_path).part(name, [sys.executable, "-c", script], settings) as part:
            part.process.wait(60)
        found = json.loads(part.log.read_text())
        assert "the caller's" not in found.values()
        assert found["HOME"] == str(tmp_path / "homes" / name) and settings.items() <= found.items()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_what_a_part_has_started_goes_with_it(servers: ModuleType, tmp_path: Path, how: str) -> None:
    child = "import time; time.sleep(600)"
    parent = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); {child}"
    )
    with servers.Place(tmp_path).part("node", [sys.executable, "-c", parent], {}) as part:
        deadline_s = time.monotonic() + 60
        while not (said := part.log.read_text()).endswith("\n") and time.monotonic() < deadline_s:
            time.sleep(0.05)
        getattr(part, how)()
        assert part.process.poll() is not None
        assert not psutil.pid_exists(int(said)) or psutil.Process(int(said)).status() == psutil.STATUS_ZOMBIE


def test_a_server_that_came_back_is_ended_with_its_children_and_one_that_died_again_is_no_error(
    servers: ModuleType,
) -> None:
    child = "import time; time.sleep(600)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print(flush=True); {child}"
    server = psutil.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == b"\n"
    below = server.children()
    for _ in range(2):
        importlib.import_module("killing").end(server)
        server.wait(60)
    assert len(below) == 1 and not psutil.wait_procs(below, 60)[1]


def test_the_recipe_is_one(servers: ModuleType) -> None:
    recipe = load_recipe("tiny", importlib.import_module("run").recipe(30))
    assert (recipe.training.optim.steps, recipe.engine.workers) == (30, 2)


def test_faults_are_drawn_evenly_and_counted(servers: ModuleType) -> None:
    faults, killing = importlib.import_module("faults"), importlib.import_module("killing")
    drawn = faults.drawn(20, tuple(killing.PARTS), random.Random(0))
    counts = {part: sum(fault.part == part for fault in drawn) for part in killing.PARTS}
    assert set(counts.values()) == {2, 3} and all(2 <= fault.stage <= 5 and 0 <= fault.share < 1 for fault in drawn)
    outcomes = [killing.Outcome(fault) for fault in drawn]
    outcomes[0].in_place, outcomes[1].lost = False, True
    assert faults.table(outcomes)[-1] == "| all | 20 | 19 | 1 | 1 | 0 |"
    assert len(faults.table(outcomes)) == 2 + len(killing.PARTS) + 1


@pytest.mark.slow
@pytest.mark.timeout(2000)  # nine minutes on a core with two threads
def test_a_pipeline_whose_parts_are_killed_makes_what_an_undisturbed_one_makes() -> None:
    command = [sys.executable, str(FOLDER / "faults.py"), "--kills", "4", "--plain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=1900)
        finally:
            process.terminate()
    assert process.returncode == 0, said
    assert re.search(r"^\| all \| 4 \| \d \| \d \| 0 \| \d+ \|$", said, re.MULTILINE), said
