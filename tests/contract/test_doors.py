"""What contradicts itself, or is not what its name says, is told at the door: one test for each kind."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from maskhand import catalog, storage
from maskhand.adapters import RawDataError, check_present, open_adapter, present_splits, read_hand
from maskhand.sample import Camera, HandSample, SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.codec import decode_sample, encode_sample
from maskhand.shards.layout import ShardError
from maskhand.shards.verify import verify
from support.hand_sets import make_samples
from support.published_layouts import WRITERS, Fixture
from support.published_layouts.hands import edit_json, licensed_folder


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def write(folder: Path, name: str, split: str, count: int = 2) -> Fixture:
    spec = catalog.load_spec(name)
    return WRITERS[spec.layout](folder / "raw", spec, split, count)


def read(fixture: Fixture, name: str, split: str, **facts: Any) -> dict[str, HandSample | SampleError]:
    spec = catalog.load_spec(name).model_copy(update=facts)
    adapter = open_adapter(spec, str(fixture.raw_dir), split)
    plan, found = adapter.plan(), dict[str, HandSample | SampleError]()
    for position, key in enumerate(plan.keys):
        try:
            found[key] = read_hand(adapter, plan.item(position))
        except SampleError as error:
            found[key] = error
    return {key: hand for key, hand in found.items() if key not in fixture.rejects}


def reasons(found: dict[str, HandSample | SampleError]) -> set[str]:
    return {hand.reason if isinstance(hand, SampleError) else "read" for hand in found.values()}


LABELS = {
    "coco_wholebody": ("val", "coco_wholebody_val_v1.0.json"),
    "interhand26m": ("val", "InterHand2.6M_val_data.json"),
    "halpe": ("val", "halpe_val_v1.json"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("part", ["images", "annotations", "annotations of other hands"])
def test_an_id_that_is_there_twice(tmp_path: Path, name: str, part: str) -> None:
    split, file = LABELS[name]
    fixture = write(tmp_path, name, split, 6)
    (path,) = fixture.raw_dir.rglob(file)
    names: list[str] = []

    def join(data: dict[str, Any]) -> None:
        first, second = data[part.split()[0]][0], data[part.split()[0]][-1]
        second["id"] = first["id"]
        if part == "annotations":  # of the same kind, as two files' are
            second |= {key: value for key, value in first.items() if key != "image_id"}
        elif part != "images":
            second["image_id"] = next(i["id"] for i in data["images"] if i["id"] != first["image_id"])
            _one_hand(first, "left")
            _one_hand(second, "right")
        names.extend(str(record.get("file_name", first["id"])) for record in (first, second))

    edit_json(path, join)
    with pytest.raises((RawDataError, ShardError), match=r"twice|two hands") as error:
        adapter_spec = catalog.load_spec(name)
        build_shards(adapter_spec, str(fixture.raw_dir), split, str(tmp_path / "set"))
    assert all(text in str(error.value) for text in names), "both pictures, or the id"


def _one_hand(annotation: dict[str, Any], side: str) -> None:
    """Leave a person or an image with this hand alone."""
    if "hand_type" in annotation:
        annotation["hand_type"] = side
    elif "lefthand_valid" in annotation:
        annotation |= {f"{one}hand_valid": one == side for one in ("left", "right")}
    else:
        left, right = slice(3 * 94, 3 * 115), slice(3 * 115, 3 * 136)
        mine, other = (left, right) if side == "left" else (right, left)
        points = annotation.setdefault("keypoints", [0] * 3 * 136)  # one person of the fixture has none
        points[mine], points[other] = (100.0, 100.0, 2) * 21, (0, 0, 0) * 21


def _hide(name: str, data: Any) -> None:
    """Mark one joint of the first hand as not annotated, with NaN or null in its place."""
    if name == "coco_wholebody":
        person = data["annotations"][0]
        field = next(f"{side}hand_kpts" for side in ("left", "right") if person[f"{side}hand_valid"])
        person[field][15:18] = [float("nan"), None, 0]
    elif name == "halpe":
        points = data["annotations"][0]["keypoints"]
        joint = next(k for k in range(94, 136) if points[3 * k + 2] > 0)
        points[3 * joint : 3 * joint + 3] = [None, float("inf"), 0]
    elif name == "hint":
        data[0]["existence"][5], data[0]["keypoints"][5], data[0]["occlusion"][5] = 0, [None, float("nan")], None
    elif name == "hand_labels":
        data["hand_pts"][5] = [float("nan"), None, 0]
    else:
        frame = next(iter(next(iter(data.values())).values()))
        frame["joint_valid"][3] = frame["joint_valid"][24] = [0]
        frame["world_coord"][3], frame["world_coord"][24] = [float("nan")] * 3, [None, 0, 0]


@pytest.mark.parametrize(
    ("name", "split", "pattern"),
    [
        ("coco_wholebody", "val", "coco_wholebody_val_v1.0.json"),
        ("halpe", "val", "halpe_val_v1.json"),
        ("hint", "VAL_newdays_img", "*.json"),
        ("mpii_nzsl", "manual_train", "*.json"),
        ("interhand26m", "val", "InterHand2.6M_val_joint_3d.json"),
    ],
)
def test_what_is_marked_away_may_hold_anything(tmp_path: Path, name: str, split: str, pattern: str) -> None:
    layout = catalog.load_spec(name).layout
    fixture = write(tmp_path, name, split, 3)
    before = read(fixture, name, split)
    assert reasons(before) == {"read"}
    path = sorted(fixture.raw_dir.rglob(pattern))[0]
    edit_json(path, lambda data: _hide(layout, data))
    after = read(fixture, name, split)
    assert reasons(after) == {"read"}
    changed = [key for key, hand in after.items() if not _same_joints(hand, before[key])]
    assert changed, "a joint is gone"
    for key in changed:
        hand, old = after[key], before[key]
        assert isinstance(hand, HandSample) and isinstance(old, HandSample)
        counts, did = (h.joints_2d_conf > 0 for h in (hand, old))  # type: ignore[operator]
        assert did.sum() - counts.sum() == 1 and np.isfinite(hand.joints_2d_px).all()
        np.testing.assert_array_equal(hand.joints_2d_px[counts], old.joints_2d_px[counts])  # type: ignore[index]


def _same_joints(one: HandSample | SampleError, other: HandSample | SampleError) -> bool:
    assert isinstance(one, HandSample) and isinstance(other, HandSample)
    return np.array_equal(one.joints_2d_conf, other.joints_2d_conf)  # type: ignore[arg-type]


def test_a_set_of_nothing_is_an_error(tmp_path: Path) -> None:
    fixture = write(tmp_path, "coco_wholebody", "val", 3)
    images = next(iter(fixture.truths.values())).image_path.parent
    images.rename(images.with_name("val2017_part2"))
    spec = catalog.load_spec("coco_wholebody")
    for _ in range(2):
        with pytest.raises(
            ShardError, match=rf"none of the hands .*missing_image.*{images}/\d+\.jpg: there is no such"
        ):
            build_shards(spec, str(fixture.raw_dir), "val", str(tmp_path / "set"))
    assert verify(str(tmp_path / "set")), "there is no set"
    images.with_name("val2017_part2").rename(images)
    assert build_shards(spec, str(fixture.raw_dir), "val", str(tmp_path / "set")).count == len(fixture.truths)
    assert verify(str(tmp_path / "set")) == []


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "pipe"])
def test_a_label_file_that_is_something_else_is_not_absent(tmp_path: Path, kind: str) -> None:
    """FreiHAND's xyz and mano may be absent; a link to a disk that is not mounted is another matter."""
    fixture = write(tmp_path, "freihand", "training")
    path = fixture.raw_dir / "training_mano.json"
    path.unlink()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("/mnt/nowhere/training_mano.json"),
        "loop": lambda: path.symlink_to(path),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    with pytest.raises(storage.StorageError, match=f"{path}: (a link to|this is a)") as error:
        read(fixture, "freihand", "training")
    assert not error.value.retryable
    with pytest.raises(storage.StorageError):
        storage.read_bytes(path)
    assert storage.list_sizes(fixture.raw_dir).get(str(path)) == (0 if kind in ("link", "loop") else None)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def encoded(image: np.ndarray, ending: str = "JPEG", **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, ending, **how)
    return stream.getvalue()


def turned(data: bytes, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(stream, "JPEG", exif=exif, quality=95)
    return stream.getvalue()


ONE_COLOR = np.full((224, 224, 3), 127, np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: png_header(20_000, 20_000), "bad_image"),
        (lambda _: png_header(40_000, 300), "bad_image"),
        (lambda _: encoded(ONE_COLOR), "empty_image"),
        (lambda _: encoded(ONE_COLOR, "PNG"), "empty_image"),
        (lambda data: turned(data, 3), "turned_image"),
        (lambda data: turned(data, 6), "turned_image"),
        (lambda data: turned(data, 1), "read"),
    ],
)
def test_a_picture_that_cannot_be_labelled_so(tmp_path: Path, change: Callable[[bytes], bytes], reason: str) -> None:
    """400 megapixels; a panorama; a single color; one that viewers turn, so that labels made in them do not fit."""
    fixture = write(tmp_path, "freihand", "training")
    path = next(iter(fixture.truths.values())).image_path
    path.write_bytes(change(path.read_bytes()))
    found = read(fixture, "freihand", "training")
    first = next(iter(found))
    assert reasons({first: found.pop(first)}) == {reason} and reasons(found) == {"read"}
    if reason == "turned_image":
        assert reasons(read(fixture, "freihand", "training", exif_orientation="ignored")) == {"read"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hand: {"camera": Camera(hand.camera.K_px.T)}, "bad_camera"),
        (lambda hand: {"camera": Camera(hand.camera.K_px * [[-1], [1], [1]])}, "bad_camera"),
        (
            lambda hand: {"joints_2d_px": np.float32([199, 159]) - hand.joints_2d_px},
            "labels_disagree",
        ),
        (lambda hand: {"joints_2d_px": 4 * hand.joints_2d_px}, "labels_disagree"),
        (lambda hand: {"camera": None, "joints_2d_px": hand.joints_2d_px / 200 - 1}, "labels_disagree"),
        (lambda hand: {"box_xyxy_px": np.float32([0, 0, 70_000, 150])}, "box_outside"),
        (lambda hand: {"joints_cam_m": hand.joints_cam_m + np.float32([0, 0, 60])}, "impossible_distance"),
        (lambda hand: {"joints_cam_m": hand.joints_cam_m * np.float32([1, 1, -1])}, "behind_camera"),
        (lambda hand: {"camera": None, "joints_cam_m": hand.joints_cam_m * np.float32([1, 1, -1])}, "read"),
    ],
)
def test_labels_that_contradict_each_other(change: Callable[[HandSample], dict[str, Any]], reason: str) -> None:
    """A matrix read by columns; half a turn; a picture made smaller after labelling; fractions of it; a joint far
    outside; another camera."""
    corner = replace(make_samples(1)[0], camera=Camera(np.array([[300.0, 0, 40], [0, 300, 30], [0, 0, 1]])))
    assert corner.joints_cam_m is not None
    points = corner.camera.project(corner.joints_cam_m).astype(np.float32)  # type: ignore[union-attr]
    hand = replace(corner, joints_2d_px=points, box_xyxy_px=np.array([0, 0, 150, 150], np.float32))
    hand.validate()
    try:
        replace(hand, **change(hand)).validate()
    except SampleError as error:
        assert (error.reason == reason and "expected" in str(error)) or "are they" in str(error)
    else:
        assert reason == "read"


def _stored(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change what one label file, of JSON or a pickle, holds for every camera or hand."""

    def apply(raw_dir: Path) -> None:
        (path,) = raw_dir.rglob(name)
        is_json = path.suffix == ".json"
        value = json.loads(path.read_text()) if is_json else pickle.loads(path.read_bytes())
        value = change(value) or value
        path.write_bytes(json.dumps(value).encode() if is_json else pickle.dumps(value))

    return apply


def _cameras(cameras: dict[str, Any], name: str, change: Callable[[Any], Any]) -> None:
    """InterHand2.6M: capture, field, camera; MTC: sequence, camera, field."""
    for one in cameras.values():
        views = one.get(name, one)
        for camera, value in views.items():
            views[camera] = change(np.array(value)).tolist() if name in one else value | {name: change(value[name])}


def _fits(fits: dict[str, Any], name: str, factor: float) -> None:
    for frame in (frame for capture in fits.values() for frame in capture.values()):
        for fit in filter(None, frame.values()):
            fit[name] = [factor * number for number in fit[name]]


MIRRORED = np.array([[-1.0], [1], [1]])


@pytest.mark.parametrize(
    ("name", "split", "change", "reason"),
    [
        (
            "interhand26m",
            "val",
            _stored("*_camera.json", lambda data: _cameras(data, "camrot", lambda R: 0 * R)),
            "bad_camera",
        ),
        (
            "interhand26m",
            "val",
            _stored("*_camera.json", lambda data: _cameras(data, "camrot", lambda R: MIRRORED * R)),
            "bad_camera",
        ),
        (
            "mtc",
            "training",
            _stored("camera_data.pkl", lambda d: _cameras(d, "R", lambda R: MIRRORED * R)),
            "bad_camera",
        ),
        ("mtc", "training", _stored("camera_data.pkl", lambda d: _cameras(d, "K", lambda K: K.T)), "bad_camera"),
        (
            "interhand26m",
            "val",
            _stored("*_NeuralAnnot.json", lambda data: _fits(data, "trans", 1000)),
            "labels_disagree",
        ),
        ("interhand26m", "val", _stored("*_NeuralAnnot.json", lambda data: _fits(data, "pose", 57)), "impossible_pose"),
        (
            "freihand",
            "evaluation",
            _stored("evaluation_verts.json", lambda data: (1000 * np.array(data)).tolist()),
            "labels_disagree",
        ),
    ],
)
def test_files_that_contradict_each_other(
    tmp_path: Path, name: str, split: str, change: Callable[[Path], None], reason: str
) -> None:
    """A camera that mirrors, one read by columns; a fit or a mesh in millimeters, a pose in degrees."""
    fixture = write(tmp_path, name, split, 3)
    assert reasons(read(fixture, name, split)) == {"read"}
    change(fixture.raw_dir)
    found = reasons(read(fixture, name, split))
    assert reason in found and found <= {reason, "read"}, "a frame without a fit is read all the same"


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    for name, (split, file) in LABELS.items():
        fixture = write(tmp_path / name, name, split)
        (path,) = fixture.raw_dir.rglob(file)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert reasons(read(fixture, name, split)) == {"read"}


@pytest.mark.parametrize("name", ["Größe 手.jpg", os.fsdecode(b"caf\xe9.jpg")])
def test_names_in_any_letters(tmp_path: Path, name: str) -> None:
    """The second is Latin-1, as old archives unpack, and no UTF-8."""
    rng = np.random.default_rng(0)
    image = cv2.imencode(".jpg", rng.integers(0, 255, (80, 90, 3), dtype=np.uint8))[1].tobytes()
    (tmp_path / name).write_bytes(image)
    hands = {name: [{"side": "left", "box_xyxy_px": [5, 5, 60, 60], "score": float("nan")}]}
    (tmp_path / "hands.json").write_text(json.dumps(hands))
    adapter = open_adapter(catalog.load_spec("photos"), str(tmp_path), next(iter(catalog.load_spec("photos").splits)))
    sample = read_hand(adapter, adapter.plan().item(0))
    again = decode_sample(sample.key, encode_sample(sample))
    assert again.image == image and again.key.isascii() and again.origin["hand"] == 0


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("freihand.zip", "freihand.zip is a file, expected a folder: unpack it"),
        ("packed", "There are archives, raw.tgz: unpack them first"),
        ("above", "They are in {}/above/deep/raw: give that folder"),
        ("letters", "There are .*TRAINING_K.JSON.*in the same upper and lower case"),
        ("empty", "The folder is empty"),
        ("loop", "There are again: expected are the published names"),
    ],
)
def test_published_files_that_are_not_where_they_belong(tmp_path: Path, place: str, said: str) -> None:
    fixture = write(tmp_path, "freihand", "training")
    (tmp_path / "freihand.zip").write_bytes(b"PK")
    for name in ("packed", "above/deep", "letters", "empty", "loop"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "packed/raw.tgz").write_bytes(b"\x1f\x8b")
    (tmp_path / "above/deep/raw").symlink_to(fixture.raw_dir)
    for path in fixture.raw_dir.iterdir():
        (tmp_path / "letters" / path.name.upper()).symlink_to(path)
    (tmp_path / "loop/again").symlink_to(tmp_path / "loop")
    spec = catalog.load_spec("freihand")
    checks: list[Callable[[], object]] = [
        lambda: present_splits(spec, str(tmp_path / place)),
        lambda: check_present(spec, str(tmp_path / place), ["training"]),
    ]
    for check in checks:
        with pytest.raises(RawDataError, match=said.format(tmp_path)) as error:
            check()
        assert str(tmp_path / place) in str(error.value) and spec.how_to_get in str(error.value)
    check_present(spec, str(fixture.raw_dir), ["training"])


@pytest.mark.parametrize(
    ("kind", "said"),
    [("GIF", "a GIF"), ("WEBP", "a WebP image"), ("TIFF", "a TIFF image"), ("BMP", "a BMP image"), ("", "empty")],
)
def test_pictures_of_other_kinds_are_named(tmp_path: Path, kind: str, said: str) -> None:
    fixture = write(tmp_path, "freihand", "training")
    first, *_ = (truth.image_path for truth in fixture.truths.values())
    first.write_bytes(encoded(np.zeros((9, 9, 3), np.uint8), kind) if kind else b"")
    (error, *_) = (e for e in read(fixture, "freihand", "training").values() if isinstance(e, SampleError))
    assert error.reason == "bad_image" and f"neither a JPEG nor a PNG file but {said}" in str(error)
    first.unlink()
    first.with_suffix(".JPG").write_bytes(b"")
    (error, *_) = (e for e in read(fixture, "freihand", "training").values() if isinstance(e, SampleError))
    assert error.reason == "missing_image" and f"there is {first.stem}.JPG, and names must agree" in str(error)
