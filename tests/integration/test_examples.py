"""The programs in examples/ do what they say, one after the other, as people would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *words: str | Path, folder: Path | None = None, **variables: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_images_become_a_set_that_plain_webdataset_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for k, side in enumerate(("right", "left", "right")):
        cv2.imwrite(str(tmp_path / f"{k}.png"), rng.integers(0, 255, (120, 160, 3), np.uint8))
        rows.append([f"{k}.png", side, *np.round(rng.uniform(20, 100, 42), 1)])
    rows.append(["missing.png", *rows[0][1:]])
    (tmp_path / "hands.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    made = run("own_dataset.py", tmp_path, tmp_path / "set").splitlines()
    assert made[0] == "3 hands, left out: {'missing_image': 1}" and len(made) == 4

    unaware = tmp_path / "maskhand.py"
    unaware.write_text("raise ImportError('maskhand is not needed to read its shards')")
    read = run("read_shards.py", tmp_path / "set", PYTHONPATH=str(tmp_path)).splitlines()
    assert sorted(line.split()[1] for line in read) == ["left", "right", "right"]
    assert all("'joints_2d_px'" in line and "[160, 120]" in line for line in read)


@pytest.mark.slow
def test_a_photo_is_predicted_from_python(tmp_path: Path, assets: Path) -> None:
    sheet = cv2.imread(str(EXAMPLES.parent / "docs" / "images" / "evaluation.jpg"))
    cv2.imwrite(str(tmp_path / "photo.png"), sheet)
    said = run("photo.py", tmp_path / "photo.png", folder=tmp_path, MASKHAND_WORKSPACE=str(assets.parent))
    meshes = sorted(tmp_path.glob("hands/photo_*.obj"))
    assert len(meshes) == len(said.splitlines()) > 0
    assert meshes[0].read_text().count("\nf ") == 1538
