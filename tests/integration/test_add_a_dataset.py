"""docs/add_a_dataset.md is true: its files are written, its commands are run, and a new shard set comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_dataset.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """Every block but the commands names its file in its first line."""
    return {text.split("\n", 1)[0].removeprefix("# "): text for language, text in BLOCKS if language != "sh"}


def script() -> str:
    return "\n".join(text for language, text in BLOCKS if language == "sh")


def test_the_page_has_its_three_files_and_every_step() -> None:
    assert list(files()) == ["cards/gestures/card.yaml", "gestures_layout.py", "gestures_fixture.py"]
    verbs = re.findall(r"^maskhand (\w+)", script(), flags=re.MULTILINE)
    assert verbs == ["shard", "annotate", "verify", "inspect"]


@pytest.mark.slow
def test_following_the_page_makes_a_verified_shard_set(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    commands = Path(sys.executable).parent
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MASKHAND_")}
    environment = outside | {"REPO": str(ROOT), "PATH": f"{commands}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        ["bash", "-e", "-c", script()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"(\d+) passed, \d+ deselected", ran.stdout)
    assert passed and int(passed[1]) >= 12, "the contract suite found the new dataset"
    assert "whole, with its sidecars" in ran.stdout

    workspace = tmp_path / "workspace"
    for part in ("images", "mano"):
        manifest = json.loads((workspace / "shards/gestures/train" / part / "manifest.json").read_text())
        assert (manifest["dataset"], manifest["count"], manifest["rejects"]) == ("gestures", 12, {})
    report = workspace / "reports/inspect/gestures/train"
    found = json.loads((report / "statistics.json").read_text())
    assert (found["official_count"], found["sides"]) == (12, {"right": 6, "left": 6})
    assert found["coverage"]["joints_cam_m"] == found["targets"]["fitted"] == 12
    assert (report / "sheet.png").read_bytes().startswith(b"\x89PNG")
