"""Kill the shard build wherever it is; the resumed build ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskhand.catalog import load_spec
from maskhand.shards.verify import verify
from support.build_shards_slowly import build
from support.published_layouts import WRITERS

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "build_shards_slowly.py"


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_killed_builds_resume_to_identical_bytes(tmp_path: Path) -> None:
    spec = load_spec("freihand_synth").model_copy(update={"images_per_annotation": {"training": 4}})
    raw = WRITERS["freihand"](tmp_path / "raw", spec, "training", 20).raw_dir
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    build(raw, whole, pause_s=0)

    reached = []
    for wanted in (4, 12):  # of 20 shards
        process = subprocess.Popen([sys.executable, str(PROGRAM), str(raw), str(resumed)])
        deadline = time.monotonic() + 120
        while len(list(resumed.glob("images/0*.tar"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline, "the build makes no progress"
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -9, "the build must be killed, not finished"
        assert not (resumed / "images" / "manifest.json").exists()
        reached.append(len(list(resumed.glob("images/0*.json"))))
    assert 0 < reached[0] < reached[1] < 20, "every run continues where the last one was killed"
    assert [p.kind for p in verify(str(resumed))] == ["unfinished"]

    build(raw, resumed, pause_s=0)
    assert _bytes(resumed) == _bytes(whole)
    assert verify(str(resumed)) == []
