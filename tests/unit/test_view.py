"""The page that shows hands, in a browser where one is installed; and hands read back from what was written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand.film.video import FilmWriter
from maskhand.predict import PredictError
from maskhand.predict.files import write_picture_files
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.page.build import MOST_HYPOTHESES, ViewedPicture, page, vertex_error_mm
from maskhand.predict.reading import read_result
from maskhand.predict.rows import hand_row, json_line
from maskhand.render import error_rgb
from maskhand.steps.view import view
from maskhand.workspace import Workspace
from support.predicted_hands import SIZE_PX, STEPS, predicted_hands

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RECONSTRUCTION = Reconstruction(None, "fit")
MESSAGE = "</script><b>&amp;"
"""A file's name that would end a script."""


@pytest.fixture(scope="module")
def hands():
    return predicted_hands()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (SIZE_PX, SIZE_PX, 3), np.uint8)


@pytest.fixture(scope="module")
def html(hands, image, tmp_path_factory) -> Path:
    alone = ViewedPicture("no photo.jpg", None, [replace(hands[0], hypotheses=(), modes=(), fill_in=())], "not found")
    file = tmp_path_factory.mktemp("page") / "view.html"
    file.write_text(page([ViewedPicture(MESSAGE, image, hands), alone], "method model"), "utf-8")
    return file


def opened(file: Path, query: str, folder: Path, *flags: str) -> tuple[dict[str, str], str]:
    """What the page's script reports, and the page's text, after a headless browser ran it without network."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}", "--use-gl=angle",
        "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--virtual-time-budget=5000", *flags,
        "--dump-dom", f"{file.as_uri()}{query}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    root = re.search(r"<html[^>]*>", done.stdout)
    assert root is not None, done.stderr[-2000:]
    return dict(re.findall(r'data-(\w+)="([^"]*)"', root.group())), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_draws_meshes_and_steps(html, hands, tmp_path) -> None:
    said, dom = opened(html, "?t=3&hand=1", tmp_path / "steps")
    assert said["ready"] == "yes" and "error" not in said
    assert said["webgl"] == "yes" and int(said["triangles"]) == 2 * len(hands[0].faces)
    assert 0.02 < float(said["covered"]) < 0.9, "pixels of the canvas are drawn"
    assert (said["step"], said["fixed"]) == ("3", str(STEPS[3]))
    cells = re.search(r'<div id="tokens">(.*?)</div>', dom, re.S)
    assert cells is not None
    assert re.findall(r"<span[^>]*>(\d*)</span>", cells.group(1)) == [str(k) if k < 11 else "" for k in range(16)]

    said, dom = opened(html, "?hypothesis=2&color=spread", tmp_path / "hypotheses")
    assert "error" not in said and "step" not in said and float(said["covered"]) > 0.02
    assert "hypothesis 3: 2.0 mm from the mean of 8 draws, mode 2" in dom and "<td>62 %</td>" in dom

    said, dom = opened(html, "?picture=1&t=2", tmp_path / "other")
    assert "error" not in said and int(said["triangles"]) == len(hands[0].faces) and "step" not in said


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_without_webgl_there_are_still_pictures(html, tmp_path) -> None:
    said, dom = opened(html, "?t=1", tmp_path / "browser", "--disable-3d-apis")
    assert said["ready"] == "yes" and said["webgl"] == "no" and "error" not in said and "triangles" not in said
    assert said["fixed"] == str(STEPS[1]), "tokens can be looked at all the same"
    stills = re.findall(r'<div class="stills"( hidden="")?>', dom)
    assert stills == ["", ""] and "they need WebGL" in dom
    assert re.search(r'<div class="stage" hidden="">', dom)


def test_the_page_fetches_nothing_and_escapes_names(html, hands) -> None:
    text = html.read_text("utf-8")
    assert not re.search(r"https?:|@import|url\(", text)
    assert all(url.startswith("data:image/jpeg;base64,") for url in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert MESSAGE not in text and text.count("</script>") == 2
    first, second = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))  # type: ignore[union-attr]
    assert first["name"] == MESSAGE and (second["photo"], second["note"]) == (None, "not found")
    assert [m["share"] for m in first["hands"][0]["modes"]] == ["62 %", "38 %"]
    assert [sum(step["fixed"]) for step in first["hands"][1]["steps"]] == list(STEPS)


def test_meshes_in_the_page_are_the_hands(html, hands) -> None:
    import base64

    text = html.read_text("utf-8")
    shown = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))[0]["hands"]  # type: ignore[union-attr]

    def vertices(mesh: dict) -> np.ndarray:
        units = np.frombuffer(base64.b64decode(mesh["vertices"]), "<i2").reshape(778, 3)
        return units * 1e-5 + mesh["middle"]

    for record, hand in zip(shown, hands, strict=True):
        np.testing.assert_allclose(vertices(record["mesh"]), hand.vertices_cam_m, atol=1.1e-5)
        faces = np.frombuffer(base64.b64decode(record["faces"]), "<u2").reshape(-1, 3)
        np.testing.assert_array_equal(faces, hand.faces)
        moved = hand.hypotheses[3].vertices_cam_m + hand.joints_cam_m[0] - hand.hypotheses[3].joints_cam_m[0]
        np.testing.assert_allclose(vertices(record["hypotheses"][3]["mesh"]), moved, atol=1.1e-5)
        colors = np.frombuffer(base64.b64decode(record["colors"]["error"]), np.uint8).reshape(778, 3)
        np.testing.assert_array_equal(colors, error_rgb(vertex_error_mm(hand.joint_error_mm)))


def test_a_vertex_has_the_error_of_the_joints_around_it(hands) -> None:
    errors = np.zeros(21)
    errors[8] = 20.0  # the tip of the index
    of_vertices = vertex_error_mm(errors)
    assert of_vertices.argmax() == 320 and of_vertices[320] == pytest.approx(20, abs=0.1)
    assert (of_vertices[[744, 443, 554, 671]] < 1).all(), "other tips"
    np.testing.assert_allclose(vertex_error_mm(np.full(21, 7.0)), 7.0)


def test_many_hypotheses_are_thinned_but_for_the_medoids(hands) -> None:
    many = replace(hands[0], hypotheses=hands[0].hypotheses[:1] * 300, modes=(replace(hands[0].modes[0], medoid=151),))
    text = page([ViewedPicture("many", None, [many])], "model")
    (hand,) = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))[0]["hands"]  # type: ignore[union-attr]
    assert len(hand["hypotheses"]) in (MOST_HYPOTHESES, MOST_HYPOTHESES + 1)
    assert hand["hypotheses"][hand["modes"][0]["medoid"]]["text"].startswith("hypothesis 152:")


def assert_same(read, hand) -> None:
    for name in ("pose_aa", "betas", "vertices_cam_m", "joints_cam_m", "transl_cam_m"):
        np.testing.assert_allclose(getattr(read, name), getattr(hand, name), atol=1e-5)
        for a, b in zip(read.hypotheses, hand.hypotheses, strict=True):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-5)
    for name in ("joints_px", "K_px", "joint_error_mm", "p_within_10mm", "keypoints_px", "box_xyxy_px"):
        np.testing.assert_allclose(getattr(read, name), getattr(hand, name), atol=0.01)
    np.testing.assert_array_equal(read.faces, hand.faces)
    assert [h.drawn for h in read.hypotheses] == [h.drawn for h in hand.hypotheses]
    assert [(m.members, m.medoid) for m in read.modes] == [(m.members, m.medoid) for m in hand.modes]
    for name in ("side", "side_known", "is_guess", "camera_origin"):
        assert getattr(read, name) == getattr(hand, name)


def test_results_are_read_back(hands, image, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "two.png"), image[:, :, ::-1])
    (file,) = write_picture_files("two.png", image, hands, RECONSTRUCTION, tmp_path / "out", "two", ("json",))
    for result in (file, file.parent):
        (picture,) = read_result(result).pictures
        assert picture.name == "two.png"
        np.testing.assert_array_equal(picture.image_rgb, image)
        for read, hand in zip(picture.hands, hands, strict=True):
            assert_same(read, hand)

    rows = [
        {"picture": str(tmp_path / "two.png"), "frame": None, "status": "hand"} | hand_row(hands[0], RECONSTRUCTION),
        {"picture": "empty.png", "frame": None, "status": "no hand", "reason": "no hand found"},
        {"picture": "film.mp4", "frame": 7, "status": "hand"} | hand_row(hands[1], RECONSTRUCTION),
        {"picture": "gone.mp4", "frame": 1, "status": "hand"} | hand_row(hands[1], RECONSTRUCTION),
    ]
    with FilmWriter(tmp_path / "film.mp4", 10) as writer:  # beside the folder, as paths of rows may be relative
        for frame in range(10):
            writer.write(np.full_like(image, 20 * frame), frame / 10)
    (file.parent / "hands.jsonl").write_bytes(b"".join(map(json_line, rows)))
    found = read_result(file.parent)
    first, second, third = found.pictures
    assert (first.name, second.name, third.name) == ("two.png", "film.mp4, frame 7", "gone.mp4, frame 1")
    assert third.image_rgb is None and second.image_rgb.shape == image.shape
    assert abs(second.image_rgb.mean() - 140) < 5, "the frame itself, not one of its neighbors"
    assert_same(second.hands[0], hands[1])
    few = read_result(file.parent, most=2)
    assert [one.name for one in few.pictures] == ["two.png", "gone.mp4, frame 1"] and few.total == 3

    written = view(Workspace.at(tmp_path / "workspace"), file.parent, None)
    assert written == file.parent / "view.html" and "film.mp4, frame 7" in written.read_text("utf-8")


def test_what_cannot_be_read_is_a_sentence(hands, tmp_path) -> None:
    (tmp_path / "other.json").write_text("[1, 2]")
    (tmp_path / "broken.jsonl").write_text('{"picture": 1')
    (tmp_path / "half.json").write_text('{"photo": "a.jpg", "hands": [{"side": "left"}]}')
    row = hand_row(hands[0], RECONSTRUCTION) | {"hand_model": "0123456789ab"}
    (tmp_path / "model.json").write_text(json.dumps({"photo": "a.jpg", "hands": [row]}))
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    whole = json.loads(json_line(hand_row(hands[0], RECONSTRUCTION)))
    short = whole["mano"] | {"hand_pose": whole["mano"]["hand_pose"][:-1]}
    for name, changes in {"pose": {"mano": short}, "kind": {"camera": None}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"photo": "a.jpg", "hands": [whole | changes]}))
    for name, sentence in {
        "other.json": "it has no list of hands; give a folder or a JSON file that `predict` wrote",
        "broken.jsonl": "not a result of `maskhand predict`",
        "half.json": "not a result of `maskhand predict` .*'hand_model'",
        "list.jsonl": r"list.jsonl: not a result of `maskhand predict` .line 1: expected an object",
        "deep.json": "deep.json: not a result of `maskhand predict` .it is nested too deeply",
        "pose.json": r"pose.json: .* .`hand_pose` is .*expected 15 x 3 finite numbers",
        "kind.json": "kind.json: .* .a field is of another kind",
        "model.json": "are of hand model 0123456789ab, configured is .*; point MASKHAND_MANO_DIR",
        "nowhere.json": "nowhere.json: there is no such file; give what `maskhand predict` wrote",
    }.items():
        with pytest.raises(PredictError, match=sentence):
            read_result(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictError, match=r"no hands\.jsonl and no JSON file of a picture with hands"):
        read_result(tmp_path / "empty")
