"""A run over a folder with every kind of file: rows, table, files; stopped and gone on; with other options."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.cli import main
from maskhand.conventions import MIRROR_POINT
from maskhand.geometry2d import tight_box
from maskhand.hand.pose_convention import BodyConvention, hand_pose_space
from maskhand.predict import PredictError, detect, stream
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.inputs import find_sources
from maskhand.predict.pictures import GivenCamera, ahead
from maskhand.predict.rows import SCHEMA_FILE
from maskhand.predict.run import predict_run
from maskhand.predict.run_files import JOURNAL, LINES, PAGE, RUN, TABLE, RunResult
from maskhand.predict.saved import SAVED
from maskhand.predict.stream import PredictRequest
from maskhand.predict.table import COLUMNS, flat
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.prepare_predict import prepare_run
from maskhand.workspace import Workspace
from support.known_hands import KnownHands, known_hands

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
SIZE = (96, 128)
PICTURES = ("a/x.mp4", "a/x.mp4", "a/x.png", "b/x.png", "blank.png", "broken.jpg", "two.png")
"""The pictures of the folder in their order; the film's frames 0 and 2."""
HANDS = {10: (0,), 60: (1,), 110: (2,), 160: (), 210: (0, 1)}
"""Gray value of a picture -> its hands."""


@pytest.fixture(scope="module")
def truth() -> KnownHands:
    return known_hands(3, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pictures")
    for name, value in {"a/x.png": 10, "b/x.png": 110, "blank.png": 160, "two.png": 210}.items():
        (home / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(home / name), np.full((*SIZE, 3), value, np.uint8))
    (home / "broken.jpg").write_text("no picture")
    (home / "notes.txt").touch()
    with av.open(str(home / "a/x.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 60, np.uint8), format="rgb24")
        for _ in range(3):
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return home


@pytest.fixture
def searched(truth, monkeypatch) -> list[int]:
    """A hand finder that knows the hands of each picture by its gray; returns the grays that it was shown."""
    shown: list[int] = []

    def seen(k: int) -> HandBox:
        left = k == 1
        meters_per_px = truth.joints_m[k, 0, 2] / truth.K_px[k, 0, 0]
        world = (truth.joints_m[k] - truth.joints_m[k].mean(0)) * (MIRROR_POINT if left else 1)
        points = truth.joints_px[k] / 224 * SIZE[0]
        detection = Detections(
            (points * ((-1, 1) if left else 1) + ((SIZE[0], 0) if left else 0))[None].astype(np.float32),
            np.full((1, 21), 0.9, np.float32),
            np.ones(1, np.float32),
            np.full(1, 0.1 if left else 0.9, np.float32),
            z_px=((world[:, 2] - world[0, 2]) / meters_per_px * SIZE[0] / 224)[None].astype(np.float32),
            world_m=world[None].astype(np.float32),
        )
        return HandBox(tight_box(detection.keypoints_px[0]), "left" if left else "right", 0.9, detection)

    def find(image: np.ndarray, assets: Path) -> list[HandBox]:
        gray = min(HANDS, key=lambda value: abs(value - float(image.mean())))
        shown.append(gray)
        return [seen(k) for k in HANDS[gray]]

    monkeypatch.setattr(detect, "find_hands", find)
    return shown


def run(folder: Path, out: Path, again: bool = False, progress=lambda *a: None, **options) -> RunResult:
    request = PredictRequest(Reconstruction(None, "fit"), Path("no-assets"), **({"every": 2, "saved": SAVED} | options))
    return predict_run(find_sources([folder], out), request, out, again, progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_picture_is_a_row(folder, searched, tmp_path) -> None:
    """One broken picture costs nothing but its row; rows keep to the schema, and the table holds the same."""
    out = tmp_path / "out"
    result = run(folder, out, vertices=True, convention=BodyConvention("smplx", 45))
    rows = list(result.rows())
    for row in rows:
        VALIDATOR.validate(row)
    pictures = [Path(row["picture"]).relative_to(folder).as_posix() for row in rows]
    assert pictures == [*PICTURES, "two.png"]
    assert [row["status"] for row in rows] == ["hand"] * 4 + ["no hand", "unreadable", "hand", "hand"]
    assert [(row["frame"], row["time_s"]) for row in rows[:3]] == [(0, 0.0), (2, 0.2), (None, None)]
    assert result.counts == {"pictures": 7, "hand": 5, "no hand": 1, "unreadable": 1, "hands": 6}
    assert "not an image that can be decoded" in rows[5]["reason"] and "broken" not in rows[5]["reason"]
    assert [row["side"] for row in rows if row["status"] == "hand"] == [
        "left",
        "left",
        "right",
        "right",
        "right",
        "left",
    ]
    for row in rows[:4]:
        K, joints = np.array(row["camera"]["K_px"]), np.array(row["joints_cam_m"])
        np.testing.assert_allclose((joints @ K.T)[:, :2] / (joints @ K.T)[:, 2:], row["joints_px"], atol=0.05)
        hand_pose = hand_pose_space(row["side"], components=45).decode(row["body_hand"]["hand_pose"])
        np.testing.assert_allclose(hand_pose, row["mano"]["hand_pose"], atol=1e-5)

    table = pq.read_table(out / TABLE)
    assert table.schema.names == list(COLUMNS)
    for row, line in zip(table.to_pylist(), rows, strict=True):
        expected = dict.fromkeys(COLUMNS) | flat(line)
        meshes = [values.pop("vertices_cam_m") or [] for values in (row, expected)]
        assert row == expected
        np.testing.assert_allclose(*meshes, atol=1e-6)
    assert np.reshape(table["mano_hand_pose"][0].as_py(), (15, 3)).tolist() == rows[0]["mano"]["hand_pose"]

    facts = json.loads((out / RUN).read_text())
    assert facts["passed_over"] == {".txt": 1} and facts["counts"] == result.counts
    expected = {"a/x.png", "b/x", "two"}
    hands = {"a/x.png": 1, "b/x": 1, "two": 2}
    made = {f"{name}{end}" for name in expected for end in ("_overlay.png", ".glb", ".json")}
    made |= {f"{name}_hand{k}.obj" for name in expected for k in range(hands[name])}
    assert set(contents(out)) == made | {RUN, LINES, TABLE} == {*facts["files"], RUN, LINES, TABLE}
    assert json.loads((out / "two.json").read_text())["hands"][1]["mesh"] == "two_hand1.obj"


class Stopped(Exception):
    pass


def stopped_after(groups: int) -> Callable[..., None]:
    calls = iter(range(100))

    def progress(*_: object) -> None:
        if next(calls) == groups:
            raise Stopped

    return progress


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_stopped_run_goes_on_to_the_same_bytes(folder, searched, tmp_path, monkeypatch, groups) -> None:
    """Stopped within and after the film, with a group half written; no picture is processed again."""
    monkeypatch.setattr(stream, "PICTURES_AT_ONCE", 1)
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(folder, whole)
    searched.clear()
    with pytest.raises(Stopped):
        run(folder, out, progress=stopped_after(groups))
    assert not (out / LINES).exists()
    with open(out / JOURNAL, "ab") as journal:
        journal.write(b'{"schema":"maskhand.hand/1","picture":"half a li')
    first = len(searched)
    result = run(folder, out)
    assert len(searched) <= 6 + 3, "but for those that were decoded ahead"
    assert first < 6 and contents(out) == contents(whole)
    searched.clear()
    assert run(folder, out) == result and not searched, "a finished run is not begun again"


def test_results_of_other_options_are_not_mixed(folder, searched, tmp_path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("blank.png", "broken.jpg"):
        (pictures / name).write_bytes((folder / name).read_bytes())
    run(folder, out)
    (out / "mine.txt").write_text("a file of the user's")
    (out / PAGE).write_text("the page of the results so far")
    with pytest.raises(PredictError, match=r"min_confidence was 0\.0 and is 0\.5; choose another --out, or --again"):
        run(folder, out, min_confidence=0.5)
    with pytest.raises(PredictError, match=r"new: .*blank\.png, .*broken\.jpg; gone: .* and 3 more"):
        run(pictures, out)
    with pytest.raises(PredictError, match=r"focal_px was not given and is 300\.0"):
        run(folder, out, camera=GivenCamera(focal_px=300.0))
    run(pictures, other)
    run(pictures, out, again=True)
    assert contents(out) == contents(other) | {"mine.txt": b"a file of the user's"}
    (pictures / "blank.png").write_bytes((folder / "two.png").read_bytes())
    with pytest.raises(PredictError, match=r"changed: .*blank\.png; choose"):
        run(pictures, out)


def test_other_files_with_the_same_options_are_added(folder, searched, tmp_path) -> None:
    """A loop over files into one folder gives what one command with all of them does; also when it was stopped."""
    names = ("two.png", "a/x.png", "blank.png")
    one, whole = tmp_path / "one", tmp_path / "whole"

    def predict(out: Path, *chosen: str, progress=lambda *a: None) -> RunResult:
        request = PredictRequest(Reconstruction(None, "fit"), Path("no-assets"), every=2, saved=SAVED)
        return predict_run(find_sources([folder / name for name in chosen]), request, out, progress=progress)

    expected = predict(whole, *names)
    predict(one, "two.png")
    with pytest.raises(Stopped):
        predict(one, "a/x.png", progress=stopped_after(0))
    with pytest.raises(PredictError, match=r"with other options or files: .*gone: .*x\.png; choose"):
        predict(one, "blank.png")
    predict(one, "a/x.png")
    searched.clear()
    assert predict(one, "blank.png").counts == expected.counts and len(searched) == 1
    assert predict(one, "two.png") == predict(one, *names) and len(searched) == 1
    for files in ((made := contents(one)), (wanted := contents(whole))):
        files.pop(RUN)
    assert made == wanted
    (same_name := tmp_path / "two.png").write_bytes((folder / "blank.png").read_bytes())
    with pytest.raises(PredictError, match=r"new: .*two\.png"):
        predict(one, str(same_name))


def test_exit_codes_and_what_is_said(folder, searched, tmp_path, capsys) -> None:
    """0 when all were processed, also without a hand; 1 when some could not be read; one sentence for each."""

    def code(*words: str | Path) -> tuple[int, str]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        try:
            main(["predict", *map(str, words), "--out", str(out), "--method", "fit", "-w", str(tmp_path / "home")])
        except SystemExit as end:
            said = capsys.readouterr()
            return int(end.code or 0), said.out + said.err
        raise AssertionError("the command returned")

    assert code(folder / "two.png")[0] == 0
    status, said = code(folder / "blank.png")
    assert status == 0 and "blank.png: no hand found; give its box" in said
    status, said = code(folder, "--every", "2", "--smooth", "frames")
    assert status == 1 and "7 pictures: 6 hands in 5 of them, no hand in 1, 1 could not be read" in said
    assert "broken.jpg: not an image that can be decoded" in said
    for words, sentence in {
        ("--box", "1,2,3,4"): "one box for 6 files",
        ("--save", "overlay,movie"): "'movie' is unknown; expected overlay, mesh, json, or none",
        ("--focal", "-5"): "focal length -5.0: expected a positive number",
        ("--intrinsics", "1,2,3"): "expected four numbers FX,FY,CX,CY",
        ("--boxes", folder / "notes.txt"): "is a film, and boxes are of pictures",
    }.items():
        status, said = code(folder, *words)
        assert status == 1 and sentence in said and said.count("error:") == 1


def test_boxes_of_a_detector_are_those_of_each_picture(folder, searched, tmp_path, monkeypatch, truth) -> None:
    boxes = tmp_path / "boxes.jsonl"
    lines = [
        {"image": "two.png", "box_xyxy_px": [10, 10, 60, 60], "side": "left", "score": 0.5},
        {"image": "blank.png"},
        {"image": "b/x.png", "box_xyxy_px": [500, 500, 600, 600]},
    ]
    boxes.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "unknown.png").write_bytes((folder / "two.png").read_bytes())
    pictures = [tmp_path / "unknown.png", *(folder / name for name in ("b/x.png", "blank.png", "two.png"))]

    class Detector:
        def detect(self, images, boxes, sides=None) -> Detections:
            points = np.tile(truth.joints_px[0].astype(np.float32), (len(boxes), 1, 1)) / 4
            return Detections(points, np.full((len(boxes), 21), 0.9), np.ones(len(boxes)), np.ones(len(boxes)))

    monkeypatch.setattr(detect, "load_detector", lambda name, assets: Detector())
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, pictures), "--out", str(tmp_path / "out"), "--method", "fit", "--boxes", str(boxes),
              "-w", str(tmp_path)])  # fmt: skip
    assert end.value.code == 1 and not searched
    rows = [json.loads(line) for line in (tmp_path / "out" / LINES).read_text().splitlines()]
    assert [row["status"] for row in rows] == ["no hand", "unreadable", "no hand", "hand"]
    assert "has no boxes for it" in rows[0]["reason"] and "it is there without a box" in rows[2]["reason"]
    assert "boxes.jsonl:3: box 500,500,600,600" in rows[1]["reason"]
    assert (rows[3]["side"], rows[3]["detection_score"], rows[3]["box_xyxy_px"]) == ("left", 0.5, [10, 10, 60, 60])
    boxes.write_text(boxes.read_text().replace("60, 60", "61, 61"))
    given = GivenOptions(boxes=boxes, method="fit")
    with pytest.raises(PredictError, match=r"boxes was '.*boxes\.jsonl \w{12}' and is '.*boxes\.jsonl \w{12}'"):
        prepare_run(Workspace.at(tmp_path), pictures, tmp_path / "out", given).finished()


def test_what_is_made_ahead_fails_in_its_place() -> None:
    def numbers():
        yield from range(3)
        raise Stopped

    made = ahead(numbers())
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Stopped):
        next(made)


def test_the_page_names_every_field() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    page = (Path(__file__).parents[2] / "docs" / "predict.md").read_text()
    fields = [*schema["properties"], *schema["$defs"]["hand"]["properties"]]
    assert [name for name in fields if f"`{name}`" not in page] == [] and f"`{schema['$id']}`" in page
