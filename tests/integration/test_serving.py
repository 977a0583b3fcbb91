"""A registered model predicts from a JPEG by `models:/maskhand@champion`, in a process that knows only MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.annotate.hand_finder import find_hands
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.vq_mano import VQMano
from maskhand.predict import read_photo
from maskhand.promotion import Score
from maskhand.recipe_files import load_recipe
from maskhand.synth.scene import open_studio, photograph, random_streams, render_foreground, sample_labels
from maskhand.tracking import ModelVersion, Promotion, Tracker

pytestmark = pytest.mark.slow

SCORE = Score(6.0, 10.0, "data-1")

CLIENT = """
import json, sys
from pathlib import Path
import mlflow
import pandas as pd
photos = sys.argv[1:]
model = mlflow.pyfunc.load_model("models:/maskhand@champion")
as_bytes = model.predict(pd.DataFrame({"image": [Path(p).read_bytes() for p in photos]}))
as_paths = model.predict(pd.DataFrame({"image": photos}), params={"vertices": True})
alone = model.predict({"image": Path(photos[0]).read_bytes()}, params={"method": "fit"})
try:
    model.predict({"image": b"no image"})
except Exception as error:
    refused = str(error)
print("ANSWER" + json.dumps([json.loads(t.to_json(orient="records")) for t in (as_bytes, as_paths, alone)] + [refused]))
"""


@dataclass(frozen=True)
class Registered:
    tracker: Tracker
    bundle: ModelBundle
    version: ModelVersion
    promotion: Promotion


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    root = tmp_path_factory.mktemp("registry")
    recipe = load_recipe("tiny", ["data.crop_px=64", "model.backbone.kwargs={embed_dim: 24, depth: 1, num_heads: 3}"])
    torch.manual_seed(0)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default())
    bundle = ModelBundle.save(root / "bundle", model, recipe, {})
    tracker = Tracker(f"sqlite:///{root / 'mlflow.db'}", root / "artifacts")
    run_id = tracker.start_run("transformer", recipe, {})
    version = tracker.register_model(root / "bundle", run_id, SCORE)
    return Registered(tracker, bundle, version, tracker.promote(version))


def test_the_registry_gives_back_the_very_bundle(registered: Registered) -> None:
    assert registered.promotion.aliases == ("challenger", "champion")
    for uri in ("models:/maskhand@champion", registered.version.uri):
        folder = registered.tracker.bundle_folder(uri)
        assert ModelBundle.load(folder).digest == registered.bundle.digest
    assert registered.tracker.bundle_folder("models:/maskhand@champion") == folder, "fetched once"


def test_a_stranger_predicts_from_jpegs(registered: Registered, assets: Path, tmp_path: Path) -> None:
    photos = _photos(tmp_path, 2, assets)
    answer = _run_client(registered, assets, photos, tmp_path)
    as_bytes, as_paths, alone, refused = answer
    assert {row["input"] for row in as_bytes} == {0, 1}, "a hand was found in both images"
    without = [{k: v for k, v in row.items() if k != "vertices_cam_m"} for row in as_paths]
    assert without == as_bytes
    by_network = [row for row in as_bytes if row["input"] == 0]
    assert [row["box_xyxy_px"] for row in alone] == [row["box_xyxy_px"] for row in by_network]
    assert all(0 < p < 1 for row in alone for p in row["p_within_10mm"]), "a fit is calibrated without any training"
    assert [row["pose_aa"] for row in alone] != [row["pose_aa"] for row in by_network]
    assert "image 0" in refused and "JPEG or PNG" in refused

    row = next(r for r in as_paths if r["side"] == "right")
    shapes = {name: np.shape(value) for name, value in row.items() if isinstance(value, list)}
    assert shapes == {
        "box_xyxy_px": (4,), "pose_aa": (16, 3), "betas": (10,), "transl_cam_m": (3,), "joints_cam_m": (21, 3),
        "joints_px": (21, 2), "K_px": (3, 3), "p_within_10mm": (21,), "joint_error_mm": (21,),
        "vertices_cam_m": (778, 3),
    }  # fmt: skip
    # The rows hold together: the parameters make the joints and the vertices.
    pose, betas, transl = (torch.tensor(row[name])[None] for name in ("pose_aa", "betas", "transl_cam_m"))
    mesh = ManoLayer.from_default()(axis_angle_to_matrix(pose), betas, transl)
    assert torch.allclose(mesh.vertices_m[0], torch.tensor(row["vertices_cam_m"]), atol=1e-4)
    assert torch.allclose(mesh.joints_m[0], torch.tensor(row["joints_cam_m"]), atol=1e-4)


def _photos(folder: Path, count: int, assets: Path) -> list[Path]:
    """Rendered hands that the hand finder finds, as JPEG files."""
    studio = open_studio()
    paths: list[Path] = []
    for index in range(20):
        streams = random_streams(0, "evaluation", index, 3)
        foreground = render_foreground(studio, sample_labels(studio, streams[0]), streams[1])
        path = folder / f"{index}.jpg"
        path.write_bytes(photograph(foreground, streams[2], "backdrop"))
        if find_hands(read_photo(path), assets):
            paths.append(path)
        if len(paths) == count:
            return paths
    raise AssertionError(f"the hand finder found a hand in only {len(paths)} of 20 rendered images")


def _run_client(registered: Registered, assets: Path, photos: list[Path], folder: Path) -> list:
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": registered.tracker.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MASKHAND_WORKSPACE": str(assets.parent),
    }
    client = subprocess.run(
        [sys.executable, "-c", CLIENT, *map(str, photos)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert client.returncode == 0, client.stderr[-3000:]
    return json.loads(client.stdout.rpartition("ANSWER")[2])
