"""Boxes of any detector: read from COCO's JSON and JSON Lines, matched by path, and refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskhand.annotate.detectors import DetectedBox, Detections, HandBox
from maskhand.predict import PredictError, detect
from maskhand.predict.box_file import BoxFile
from maskhand.predict.detect import detect_hands

IMAGE = np.zeros((100, 200, 3), np.uint8)
COCO = {
    "images": [
        {"id": 1, "file_name": "day/a.jpg", "width": 200, "height": 100},
        {"id": 2, "file_name": "night/a.jpg"},
        {"id": 7, "file_name": "none.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [10, 20, 30, 40], "score": 0.8},
        {"id": 2, "image_id": 2, "category_id": 6, "bbox": [1, 2, 3.5, 4]},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 200, 100]},
        {"id": 4, "image_id": 1, "category_id": 6, "bbox": [60, 20, 30, 40], "side": "right"},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "left_hand"}, {"id": 6, "name": "Hand"}],
}
LINES = [
    {"image": "/old/place/day/a.jpg", "box_xyxy_px": [9.5, 19.5, 39.5, 59.5], "side": "left", "score": 0.8, "more": 1},
    {"image": "night/a.jpg", "box_xyxy_px": [0.5, 1.5, 4, 5.5]},
    {"image": "/old/place/day/a.jpg", "box_xyxy_px": [59.5, 19.5, 89.5, 59.5], "side": "right"},
    {"image": "none.jpg"},
]


def written(folder: Path, text: str) -> Path:
    path = folder / "boxes.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text", [json.dumps(COCO), json.dumps(COCO, indent=1), "\n".join(map(json.dumps, LINES)) + "\n\n"]
)
def test_both_forms_give_the_same_boxes_by_path(text: str, tmp_path: Path) -> None:
    file = BoxFile.read(written(tmp_path, "\ufeff" + text))
    day, night, none, other = file.match(["photos/day/a.jpg", Path("/x/night/a.jpg"), "none.jpg", "other.jpg"])
    left, right = day.of(IMAGE)
    assert left == DetectedBox((9.5, 19.5, 39.5, 59.5), "left", 0.8)
    assert right == DetectedBox((59.5, 19.5, 89.5, 59.5), "right", None)
    assert night.of(IMAGE) == (DetectedBox((0.5, 1.5, 4.0, 5.5), None, None),)
    assert none.of(IMAGE) == () and "without a box" in file.why_none(none)
    assert other is None and "boxes.json has no boxes for it: names there, such as" in file.why_none(other)


def test_a_name_may_hold_what_some_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    name = "a\u2028b\x85c.jpg"
    file = BoxFile.read(written(tmp_path, json.dumps(LINES[1] | {"image": name}, ensure_ascii=False)))
    assert [given.name for given in file.pictures] == [name]


def coco(**changes: object) -> str:
    return json.dumps(COCO | changes)


def line(**changes: object) -> str:
    return json.dumps(LINES[1]) + "\n" + json.dumps(LINES[1] | changes)


box = COCO["annotations"][0]
image = COCO["images"][0]
REFUSED = {
    "nothing": ("", "no boxes; expected COCO's JSON or lines such as"),
    "not JSON": ("x,y,w,h\n", r":1: not valid JSON: .*; expected a line such as"),
    "a list": (json.dumps([box]), "found a list of 1; expected COCO's object with the lists images"),
    "no categories": (json.dumps({"images": [], "annotations": []}), "found images, annotations; expected COCO's"),
    "no hands": (coco(categories=[{"id": 1, "name": "person"}]), "`categories` are person; expected one with `hand`"),
    "an image twice": (coco(images=[image, image | {"id": 9}]), r"images\[0\]: `file_name` day/a.jpg is there twice"),
    "an id twice": (coco(images=[image, image | {"file_name": "b"}]), r"images\[1\]: `id` 1 is there twice"),
    "an unknown image": (coco(annotations=[box | {"image_id": 99}]), r"annotations\[0\]: its `image_id` is in none"),
    "NaN": (
        coco(annotations=[box, box | {"bbox": [1, 2, float("nan"), 4]}]),
        r"annotations\[1\]: `bbox` is \[1, 2, nan",
    ),
    "no width": (coco(annotations=[box | {"bbox": [1, 2, 0, 4]}]), r"annotations\[0\]: `bbox` .* with a size above 0"),
    "no box": (coco(annotations=[{"image_id": 1, "category_id": 5}]), r"annotations\[0\]: no `bbox`; found"),
    "three numbers": (line(box_xyxy_px=[1, 2, 3]), r":2: `box_xyxy_px` is \[1, 2, 3\]; expected four finite numbers"),
    "infinite": (line(box_xyxy_px=[1, 2, 3, float("inf")]), ":2: `box_xyxy_px` .* four finite numbers"),
    "turned about": (line(box_xyxy_px=[9, 2, 3, 4]), ":2: `box_xyxy_px` .* with x0 < x1 and y0 < y1"),
    "no image": (line(image=None), ":2: `image` is None; expected a picture's path"),
    "another side": (line(side="both"), ":2: `side` is 'both'; expected left or right"),
    "percent": (line(score=80), ":2: `score` is 80; expected 0 to 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_wrong_file_is_refused_with_its_place(kind: str, tmp_path: Path) -> None:
    text, words = REFUSED[kind]
    with pytest.raises(PredictError, match=rf"(?s)boxes\.json.*{words}"):
        BoxFile.read(written(tmp_path, text))


def test_boxes_that_are_not_the_pictures_are_refused_with_their_place(tmp_path: Path) -> None:
    outside = BoxFile.read(written(tmp_path, line(box_xyxy_px=[500, 20, 600, 90], image="b.jpg")))
    with pytest.raises(PredictError, match=r"boxes\.json:2: box 500,20,600,90: expected .* of the 200 x 100 image"):
        outside.match(["b.jpg"])[0].of(IMAGE)
    sideways = BoxFile.read(written(tmp_path, coco()))
    with pytest.raises(PredictError, match=r"images\[0\]: day/a.jpg is said to be 200 x 100, .* EXIF orientation"):
        sideways.match(["day/a.jpg"])[0].of(IMAGE.transpose(1, 0, 2))
    assert sideways.match(["else/a.jpg", "b/none.jpg"])[0] is None, "boxes of another folder's picture of that name"
    twice = BoxFile.read(written(tmp_path, line(image="old/x/a.jpg") + "\n" + line(image="new/x/a.jpg")))
    with pytest.raises(PredictError, match=r"old/x/a.jpg and new/x/a.jpg fit other/x/a.jpg equally well"):
        twice.match(["other/x/a.jpg"])
    with pytest.raises(PredictError, match=r"none.jpg fits x/none.jpg and y/none.jpg; write more"):
        sideways.match(["x/none.jpg", "y/none.jpg"])


def test_names_that_were_written_on_windows(tmp_path: Path) -> None:
    boxes = BoxFile.read(written(tmp_path, line(image="C:\\photos\\day\\a.jpg")))
    assert boxes.match(["day/a.jpg"])[0] is not None and boxes.match(["evening/a.jpg"])[0] is None
    assert "such as night/a.jpg, must fit by their folders" in boxes.why_none(None)


class Keypoints:
    def detect(self, images, boxes, sides=None) -> Detections:
        self.sides = list(sides)
        n = len(images)
        return Detections(
            np.zeros((n, 21, 2), np.float32), np.zeros((n, 21), np.float32), np.ones(n, np.float32), np.full(n, 0.9)
        )


def test_any_detector_can_be_plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its boxes, sides and scores are taken; keypoints are detected where it has none."""
    keypoints = Keypoints()
    monkeypatch.setattr(detect, "load_detector", lambda name, assets: keypoints)
    monkeypatch.setattr(detect, "find_hands", lambda *a: pytest.fail("the embedded finder ran"))
    seen = []

    def finder(image: np.ndarray) -> list[DetectedBox]:
        seen.append(image.shape)
        return [DetectedBox((1, 2, 30, 40), "left", 0.7), DetectedBox(np.array([5, 6, 70, 80]))]

    for given in ({"boxes_xyxy_px": None, "finder": finder}, {"boxes_xyxy_px": finder(IMAGE)}):
        found = detect_hands(IMAGE, **given, side=None, detector="any", assets=Path())
        assert found.sides == ("left", "right") and keypoints.sides == ["left", None]
        assert found.scores == (0.7, None) and found.side_known == (True, False), "no keypoint was seen"
        assert found.boxes_xyxy_px.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]]
    assert seen == [IMAGE.shape, IMAGE.shape]
    assert detect_hands(IMAGE, None, "right", "any", Path(), finder=finder).sides == ("right", "right")
    with pytest.raises(PredictError, match="box 5,6,5,80: expected"):
        detect_hands(IMAGE, None, None, "any", Path(), finder=lambda image: [DetectedBox((5, 6, 5, 80))])

    def complete(image: np.ndarray) -> list[HandBox]:
        return [HandBox(np.array([1.0, 2, 30, 40]), "left", 0.9, Keypoints().detect([image], [0], ["left"]))]

    monkeypatch.setattr(detect, "load_detector", lambda *a: pytest.fail("a second detection"))
    assert detect_hands(IMAGE, None, None, detect.HAND_FINDER, Path(), finder=complete).side_known == (False,)
