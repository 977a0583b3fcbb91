"""`maskhand.load().predict(...)`, and the answer of a served model, which is the same."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

import maskhand
from maskhand.annotate.detectors import Detections, HandBox
from maskhand.geometry2d import tight_box
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import BundleError
from maskhand.predict import PredictError, detect, predict_hands
from maskhand.predict.rows import SCHEMA_FILE
from maskhand.predict.service import COLUMNS, PARAMETERS, answer
from maskhand.predict.table import flat
from maskhand.tracking.registry import _SERVING_PACKAGES
from maskhand.workspace import assets_folder
from support.known_hands import KnownHands, known_hands
from support.model_parts import small_model, small_recipe

PHOTO = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
NO_ASSETS = Path("no-assets")


@pytest.fixture(scope="module")
def truth() -> KnownHands:
    return known_hands(2, seed=3)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    recipe = small_recipe(pose2d_tokens=21)
    model = small_model(recipe)
    return ModelBundle(model, recipe, {}, model.mano.digest, "0" * 64)


@pytest.fixture(autouse=True)
def finder(truth: KnownHands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hands in every picture that is not black."""

    def seen(k: int) -> HandBox:
        world = truth.joints_m[k] - truth.joints_m[k].mean(0)
        detection = Detections(
            truth.joints_px[k][None].astype(np.float32),
            np.full((1, 21), 0.9, np.float32),
            np.ones(1, np.float32),
            np.full(1, 0.9, np.float32),
            z_px=np.zeros((1, 21), np.float32),
            world_m=world[None].astype(np.float32),
        )
        return HandBox(tight_box(detection.keypoints_px[0]), "right", 0.9, detection)

    monkeypatch.setattr(detect, "find_hands", lambda image, assets: [seen(0), seen(1)] if image.any() else [])


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def test_three_lines_give_hands_that_show_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a & b.png"
    path.write_bytes(png(PHOTO))
    hands = maskhand.load(method="fit").predict(path, focal_px=500.0)
    (expected, _) = predict_hands(PHOTO, None, focal_px=500.0)
    assert len(hands) == 2 and hands.camera.origin == "focal"
    np.testing.assert_allclose(hands[0].vertices_cam_m, expected.vertices_cam_m, atol=1e-6)
    assert all(isinstance(hand.joints_cam_m, np.ndarray) for hand in hands)
    shown = hands._repr_html_()
    assert "data:image/jpeg;base64," in shown and "a &amp; b.png" in shown and "hand 1: right, joints expected" in shown
    assert repr(hands).startswith(f"Hands of {path}\n  hand 0: right, joints expected")
    assert hands.overlay().ndim == 3 and hands.overlay().dtype == np.uint8
    names = {written.name for written in hands.save(tmp_path / "out")}
    assert {"a & b.json", "a & b.glb", "a & b_overlay.png", "a & b_hand0.obj"} <= names


def test_a_broken_picture_of_a_list_is_said_and_the_others_are_done() -> None:
    predictor = maskhand.load(method="fit")
    good, broken, black = predictor.predict([PHOTO, b"broken", np.zeros_like(PHOTO)])
    assert len(good) == 2 and good.error is None
    assert len(broken) == 0 and broken.error.startswith("picture 1: not an image") and broken.save("nowhere") == []
    assert "not an image" in broken._repr_html_() and "no hand found" in black._repr_html_()
    with pytest.raises(PredictError, match="picture 0: not an image"):
        predictor.predict(b"broken")
    with pytest.raises(PredictError, match=r"nowhere\.jpg"):
        predictor.predict("nowhere.jpg")
    with pytest.raises(PredictError, match="hypotheses: a network is needed"):
        predictor.predict(PHOTO, hypotheses=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_px": -1.0}, "focal length -1.0: expected a positive number"),
        ({"focal_px": 5.0, "intrinsics": [5, 5, 1, 1]}, "both focal_px and intrinsics are given"),
        ({"intrinsics": [5, 5]}, r"intrinsics \[5.*\]: expected four numbers fx, fy, cx, cy"),
        ({"box": [1, 2, 3]}, "box .*: expected four numbers x0, y0, x1, y1"),
        ({"side": "up"}, "side 'up': expected one of right, left"),
        ({"min_confidence": 2.0}, "min_confidence 2.0: expected 0 to 1"),
        ({"method": "guess"}, "method 'guess': expected one of fit, model, refine"),
        ({"camera": "eye"}, "camera 'eye': expected one of keypoints, model"),
        ({"hypotheses": -1}, "hypotheses -1: expected 0 or more"),
        ({"focal": 5.0}, "params: focal is unknown; expected method, vertices"),
    ],
)
def test_what_no_picture_can_be_asked_is_an_error(bundle: ModelBundle, options: dict, message: str) -> None:
    with pytest.raises(PredictError, match=message):
        answer([PHOTO], options, bundle, NO_ASSETS)


def test_the_library_refuses_the_same(bundle: ModelBundle) -> None:
    predictor = maskhand.load(method="fit")
    with pytest.raises(PredictError, match="camera 'eye': expected one of keypoints, model"):
        predictor.predict(PHOTO, camera="eye")  # type: ignore[call-overload]
    with pytest.raises(PredictError, match="hypotheses -1: expected 0 or more"):
        predictor.predict(PHOTO, hypotheses=-1)
    with pytest.raises(BundleError, match=r"opne: no such model; give an exported folder, `open`"):
        maskhand.load("opne", method="model")
    assert repr(bundle) == f"ModelBundle(recipe {bundle.recipe.name}, digest {bundle.digest})"


def test_the_answer_of_a_served_model_has_the_rows_of_a_run(bundle: ModelBundle) -> None:
    """A row per hand; one for a broken picture, for one without hands, for one that the box misses."""
    params = {"focal_px": 480.0, "vertices": True, "method": "refine", "hypotheses": 3}
    rows = answer([png(PHOTO), b"broken", PHOTO / 255, np.zeros_like(PHOTO)], params, bundle, NO_ASSETS)
    assert [(row["input"], row["status"], row["hand"]) for row in rows] == [
        (0, "hand", 0), (0, "hand", 1), (1, "unreadable", None), (2, "hand", 0), (2, "hand", 1), (3, "no hand", None),
    ]  # fmt: skip
    assert all(list(row) == list(COLUMNS) for row in rows)
    assert rows[2]["error"].startswith("image 1: not an image") and rows[5]["error"] is None
    alike = [name for name in COLUMNS if name != "input"]
    assert [rows[0][name] for name in alike] == [rows[3][name] for name in alike], (
        "bytes and floats to 1 are one picture"
    )
    assert rows[0]["camera_source"] == "focal" and rows[0]["camera_K_px"][0] == 480.0
    assert np.shape(rows[0]["vertices_cam_m"]) == (778 * 3,) and json.loads(rows[0]["hypotheses"])

    given = maskhand.predict.predictor.Predictor(maskhand.predict.Reconstruction(bundle, "model"), NO_ASSETS)
    hands = given.predict(PHOTO, intrinsics=(480.0, 490.0, 100.0, 90.0))
    (row, _) = hands.rows()
    schema = json.loads(SCHEMA_FILE.read_bytes())
    of_a_file = {"picture": "given", "name": "given", "frame": None, "time_s": None}
    jsonschema.validate(row | of_a_file, schema)
    params = {"intrinsics": [480.0, 490.0, 100.0, 90.0]}
    assert {name: value for name, value in flat(row).items()}.items() <= answer([PHOTO], params, bundle, NO_ASSETS)[
        0
    ].items()
    assert set(PARAMETERS) >= {"box", "side", "focal_px", "intrinsics"}
    missed = answer([PHOTO, png(PHOTO)], {"box": [900, 900, 950, 950]}, bundle, NO_ASSETS)
    assert [row["status"] for row in missed] == ["unreadable", "unreadable"] and "box 900" in missed[0]["error"]


def test_what_is_fetched_lies_in_the_cache_without_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASKHAND_WORKSPACE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert assets_folder() == tmp_path / "home" / ".cache" / "maskhand"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert assets_folder() == tmp_path / "cache" / "maskhand"
    (tmp_path / "workspace").mkdir()
    assert assets_folder() == tmp_path / "workspace" / "assets"
    monkeypatch.setenv("MASKHAND_WORKSPACE", str(tmp_path / "other"))
    assert assets_folder() == tmp_path / "other" / "assets"


def test_the_packages_of_a_served_model_are_all_that_it_imports() -> None:
    program = (
        "import sys, maskhand.predict.service, maskhand.annotate.litert\nfrom importlib import metadata\n"
        "of = metadata.packages_distributions()\n"
        "print(*{d for m in list(sys.modules) for d in of.get(m.partition('.')[0], [])})"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    named, brought = list(_SERVING_PACKAGES), {"maskhand", "setuptools"}
    while named:
        name = re.sub(r"[-_.]+", "-", named.pop()).lower()
        if name not in brought:
            brought.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):  # of another platform
                wanted = [r for r in metadata.requires(name) or [] if "extra ==" not in r]
                named += [re.match(r"[\w.-]+", requirement)[0] for requirement in wanted]  # type: ignore[index]
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in said.split()} - brought == set()


def test_python_needs_neither_mlflow_nor_prefect_and_imports_at_once() -> None:
    program = (
        "import sys, maskhand\n"
        "print(*sorted({'torch', 'numpy', 'cv2', 'pydantic'} & sys.modules.keys()))\n"
        "maskhand.load(method='fit')\n"
        "print(*sorted({'mlflow', 'prefect', 'ray', 'deepspeed', 'pandas', 'matplotlib'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "\n\n"
