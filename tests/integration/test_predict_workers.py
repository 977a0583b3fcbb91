"""`maskhand predict --workers N`: rendered hands, looked at in Ray's own processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskhand.cluster.session import ray_session
from maskhand.predict.shards import HANDS
from maskhand.progress import silent
from maskhand.shards.manifest import read_manifest
from maskhand.steps.predict_shards import predict_by_workers
from maskhand.synth.freihand_layout import write_freihand_synth
from maskhand.workspace import Workspace

pytestmark = pytest.mark.slow


def test_any_number_of_workers_gives_the_same_shards(tmp_path: Path, assets: Path) -> None:
    write_freihand_synth(tmp_path / "raw", train=4, evaluation=9, mocap=4, seed=3, workers=1)
    (pictures,) = (tmp_path / "raw").glob("evaluation/rgb")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    home = Workspace(assets.parent, str(tmp_path / "shards"))
    made = []
    with ray_session():
        for workers in (1, 2):
            out = tmp_path / f"out{workers}"
            receipt = predict_by_workers(home, [pictures], str(out), silent, workers=workers, method="fit")
            made.append({path.name: path.read_bytes() for path in (out / HANDS).iterdir()})
    assert made[0] == made[1] and len(made[0]) == 2 * 2 + 1
    manifest = read_manifest(str(out), HANDS)
    assert receipt.unreadable == 1 and receipt.hands == manifest.count - receipt.no_hand - 1 > 0
    assert manifest.planned == 10
