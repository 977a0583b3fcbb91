"""A registered model predicts from a JPEG by `models:/maskhand@champion`, in a process that knows only MLflow."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

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
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

CLIENT = """
import json, sys
from pathlib import Path
import cv2, mlflow, numpy as np
import pandas as pd
photos = sys.argv[1:]
model = mlflow.pyfunc.load_model("models:/maskhand@champion")
data = [Path(p).read_bytes() for p in photos]
floats = cv2.imdecode(np.frombuffer(data[0], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1] / 255
as_bytes = model.predict(pd.DataFrame({"image": data}))
as_paths = model.predict(pd.DataFrame({"image": photos}), params={"vertices": True})
alone = model.predict({"image": data[0]}, params={"method": "fit"})
some = [data[0], b"broken", Path(photos[1]), floats]
mixed = model.predict(pd.DataFrame({"image": some}), params={"focal_px": 480.0})
try:
    model.predict({"image": data[0]}, params={"focal": 480.0})
except Exception as error:
    refused = str(error)
tables = (as_bytes, as_paths, alone, mixed)
print("ANSWER" + json.dumps([json.loads(t.to_json(orient="records")) for t in tables] + [refused]))
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


def test_a_stranger_predicts_from_jpegs(registered: Registered, photos: list[Path], assets: Path) -> None:
    as_bytes, as_paths, alone, mixed, refused = _run_client(registered, assets, photos)
    assert [row["status"] for row in as_bytes] == ["hand"] * len(as_bytes)
    assert {row["input"] for row in as_bytes} == {0, 1}, "a hand was found in both images"
    as_path = {"vertices_cam_m", "picture"}
    without = [{k: v for k, v in row.items() if k not in as_path} for row in as_paths]
    assert without == [{k: v for k, v in row.items() if k not in as_path} for row in as_bytes]
    by_network = [row for row in as_bytes if row["input"] == 0]
    assert [row["box_xyxy_px"] for row in alone] == [row["box_xyxy_px"] for row in by_network]
    assert all(0 < p < 1 for row in alone for p in row["p_within_10mm"]), "a fit is calibrated without any training"
    assert [row["mano_hand_pose"] for row in alone] != [row["mano_hand_pose"] for row in by_network]
    assert "focal" in refused and "expected method, vertices" in refused

    (broken,) = (row for row in mixed if row["input"] == 1)
    assert broken["status"] == "unreadable" and broken["error"].startswith("image 1: not an image")
    assert {row["input"] for row in mixed if row["status"] == "hand"} == {0, 2, 3}
    assert all(row["camera_K_px"][0] == 480.0 for row in mixed if row["status"] == "hand")
    of_bytes, of_floats = ([row["joints_cam_m"] for row in mixed if row["input"] == k] for k in (0, 3))
    assert of_bytes == of_floats

    row = next(r for r in as_paths if r["side"] == "right")
    # The rows hold together: the parameters make the joints and the vertices.
    pose = torch.tensor(row["mano_global_orient"] + row["mano_hand_pose"]).view(1, 16, 3)
    betas, transl = (torch.tensor(row[name])[None] for name in ("mano_betas", "mano_transl_cam_m"))
    mesh = ManoLayer.from_default()(axis_angle_to_matrix(pose), betas, transl)
    assert torch.allclose(mesh.vertices_m[0].flatten(), torch.tensor(row["vertices_cam_m"]), atol=1e-4)
    assert torch.allclose(mesh.joints_m[0].flatten(), torch.tensor(row["joints_cam_m"]), atol=1e-4)


def test_mlflow_serves_photos(registered: Registered, photos: list[Path], assets: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/maskhand@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=_environment(registered, assets), stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
            texts = [[base64.b64encode(photos[0].read_bytes()).decode()], ["no picture"]]
            answer = _post(port, {"dataframe_split": {"columns": ["image"], "data": texts}, "params": {"box": []}})
            rows = answer["predictions"]
            assert rows[0]["status"] == "hand" and len(rows[0]["joints_cam_m"]) == 63
            assert rows[-1]["input"] == 1 and "neither a file nor base64" in rows[-1]["error"]
            with pytest.raises(urllib.error.HTTPError) as refused:
                _post(port, {"inputs": {"image": texts[0][0]}, "params": {"focal": 480.0}})
            assert "expected method, vertices" in refused.value.read().decode()
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(60)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(1500):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with _DIRECT.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def _post(port: int, body: dict) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with _DIRECT.open(request, timeout=300) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def photos(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two rendered hands that the hand finder finds, as JPEG files."""
    studio, folder = open_studio(), tmp_path_factory.mktemp("photos")
    paths: list[Path] = []
    for index in range(20):
        streams = random_streams(0, "evaluation", index, 3)
        foreground = render_foreground(studio, sample_labels(studio, streams[0]), streams[1])
        path = folder / f"{index}.jpg"
        path.write_bytes(photograph(foreground, streams[2], "backdrop"))
        if find_hands(read_photo(path), assets):
            paths.append(path)
        if len(paths) == 2:
            return paths
    raise AssertionError(f"the hand finder found a hand in only {len(paths)} of 20 rendered images")


def _environment(registered: Registered, assets: Path) -> dict[str, str]:
    return os.environ | {
        "MLFLOW_TRACKING_URI": registered.tracker.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MASKHAND_WORKSPACE": str(assets.parent),
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"]]
        ),  # MLflow starts uvicorn by name
    }


def _run_client(registered: Registered, assets: Path, photos: list[Path]) -> list:
    client = subprocess.run(
        [sys.executable, "-c", CLIENT, *map(str, photos)],
        cwd=photos[0].parent,
        env=_environment(registered, assets),
        capture_output=True,
        text=True,
    )
    assert client.returncode == 0, client.stderr[-3000:]
    return json.loads(client.stdout.rpartition("ANSWER")[2])
