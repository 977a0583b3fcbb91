"""`maskhand predict --workers N`: rendered hands, processed in Ray's own processes; pictures and shards on a store."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand import storage
from maskhand.cluster.session import ray_session
from maskhand.predict import detect
from maskhand.predict.inputs import find_sources
from maskhand.predict.options import ReconstructionSettings
from maskhand.predict.shard_request import ShardRequest
from maskhand.predict.shards import HANDS, predict_shards
from maskhand.progress import silent
from maskhand.shards.manifest import read_manifest
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.predict_shards import predict_by_workers
from maskhand.steps.prepare_predict_shards import prepare_shard_run
from maskhand.synth.freihand_layout import write_freihand_synth
from maskhand.workspace import Workspace
from support.s3_server import s3_server

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
            run = prepare_shard_run(home, [pictures], str(out), GivenOptions(method="fit"))
            receipt = predict_by_workers(run, silent, workers=workers)
            made.append({path.name: path.read_bytes() for path in (out / HANDS).iterdir()})
    assert made[0] == made[1] and len(made[0]) == 2 * 2 + 1
    manifest = read_manifest(str(out), HANDS)
    assert receipt.unreadable == 1 and receipt.hands == manifest.count - receipt.no_hand - 1 > 0
    assert manifest.planned == 10


def test_pictures_and_shards_on_a_store_are_those_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "find_hands", lambda image, assets: [])
    settings = ReconstructionSettings("fit", None, "keypoints", 0)
    request, pictures = ShardRequest(settings, None, "unused"), tmp_path / "in"
    (pictures / "below").mkdir(parents=True)
    for k, name in enumerate(("a.png", "below/a.png", "b.png")):
        cv2.imwrite(str(pictures / name), np.full((32, 32, 3), 80 * k, np.uint8))
    (pictures / "c.jpg").write_bytes(b"no picture")
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        there, out = f"s3://{server.bucket}/in", f"s3://{server.bucket}/out"
        for path in pictures.rglob("*.*"):
            storage.write_bytes_atomic(f"{there}/{path.relative_to(pictures).as_posix()}", path.read_bytes())
        made = predict_shards(find_sources([there]).files, request, out)
        assert made == read_manifest(out, HANDS) == predict_shards(find_sources([there]).files, request, out)
        assert made.rejects == {"no_hand": 3, "unreadable": 1} and made.planned == 4
        local = predict_shards(find_sources([pictures]).files, request, str(tmp_path / "out"))
    assert local.rejects == made.rejects and local.count == made.count
