"""Inspecting a set: numbers against brute force, images against where the hands are, one shard in memory."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from maskhand.annotate.images import decode_rgb
from maskhand.annotate.mano_targets import annotate_mano
from maskhand.geometry2d import box_center_px, crop_affine
from maskhand.hand.assumed_camera import FOCAL
from maskhand.inspection import inspect_set as subject
from maskhand.inspection import sheet
from maskhand.inspection.inspect_set import drawn_evenly, inspect_set
from maskhand.inspection.sheet import set_sheet
from maskhand.inspection.spread import Histogram, Moments, RotationSpread
from maskhand.inspection.targets import mesh_of, target_of
from maskhand.render import FINGER_RGB
from maskhand.sample import Camera, HandSample
from maskhand.shards.layout import MANO, ShardError
from maskhand.shards.reader import LoadedShard, ShardSample, ShardSet
from maskhand.steps import inspection
from maskhand.workspace import Workspace
from support.hand_models import random_fields
from support.hand_sets import make_samples, write_set


def test_quantiles_are_numpys_to_half_a_bin(rng: np.random.Generator) -> None:
    values = rng.lognormal(5, 1, 20_000)
    histogram = Histogram(1, 1e5, log=True)
    for piece in np.array_split(values, 7):
        histogram.add(piece)
    histogram.add([np.nan, np.inf])
    found = histogram.quantiles()
    wanted = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose([found.p5, found.p25, found.p50, found.p75, found.p95], wanted, rtol=2e-3)
    assert (found.count, found.min, found.max) == (20_000, values.min(), values.max())
    assert Histogram(0, 1).quantiles().p50 is None


def test_whole_numbers_stay_whole() -> None:
    histogram = Histogram(-0.5, 21.5, bins=22)
    histogram.add([21, 21, 3, 0])
    assert dataclasses.astuple(histogram.quantiles()) == (4, 0, 0, 0, 3, 21, 21, 21)


def test_moments_of_pieces_are_those_of_the_whole(rng: np.random.Generator) -> None:
    rows = rng.normal(1000, 1, (500, 3))
    moments = Moments(3)
    for piece in np.split(rows, [1, 40, 40]):
        moments.add(piece)
    np.testing.assert_allclose(moments.mean(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std(), rows.std(0), rtol=1e-9)


def test_spread_of_small_rotations_is_their_root_mean_square_angle(rng: np.random.Generator) -> None:
    base = Rotation.random(16, random_state=1)
    turns = rng.normal(0, 0.05, (3000, 16, 3))
    poses = np.stack([(base * Rotation.from_rotvec(turn)).as_rotvec() for turn in turns])
    spread = RotationSpread()
    for piece in np.array_split(poses, 4):
        spread.add(piece)
    wanted = np.degrees(np.sqrt((turns**2).sum(2).mean(0)))
    np.testing.assert_allclose(spread.degrees(), wanted, rtol=0.01)
    assert RotationSpread().degrees() == []


def test_one_hand_from_each_stretch() -> None:
    drawn = sorted(drawn_evenly(1003, 10, seed=3))
    assert len(drawn) == 10
    assert all(k * 1003 // 10 <= place < (k + 1) * 1003 // 10 for k, place in enumerate(drawn))
    assert drawn_evenly(1003, 10, 3) == set(drawn) != drawn_evenly(1003, 10, 4)
    assert drawn_evenly(4, 10, 0) == {0, 1, 2, 3}


@pytest.fixture
def shard_set(tmp_path: Path) -> tuple[str, list[HandSample]]:
    """Nine hands: left and right, one of them only keypoints, one without any label."""
    samples = make_samples(9, sides=("right", "left"))
    bare = dict.fromkeys(("camera", "joints_cam_m", "joints_3d_valid", "vertices_cam_m", "mano"))
    conf = np.where(np.arange(21) < 14, 0.75, 0).astype(np.float32)
    samples[3] = dataclasses.replace(samples[3], **bare, joints_2d_conf=conf, joints_2d_occluded=np.arange(21) < 2)
    samples[6] = dataclasses.replace(samples[6], **bare, joints_2d_px=None, joints_2d_conf=None)
    uri = str(tmp_path / "toy")
    write_set(uri, samples, shard_size=4)
    return uri, samples


def test_statistics_are_those_of_all_samples(shard_set: tuple[str, list[HandSample]]) -> None:
    uri, samples = shard_set
    annotate_mano(uri)
    found = inspect_set(uri, hands=2).statistics
    assert (found.read, found.sides) == (9, {"right": 5, "left": 4})
    labels = ("camera", "joints_2d_px", "joints_2d_occluded", "joints_cam_m", "mano")
    assert [found.coverage[label] for label in labels] == [7, 8, 1, 7, 7]
    assert (found.joints_2d.count, found.joints_2d.min, found.joints_2d.p50) == (8, 14, 21)
    assert (found.joints_2d_conf.min, found.joints_2d_conf.max) == (0.75, 1.0)
    sizes = [np.ptp(s.box_xyxy_px.reshape(2, 2), axis=0).max() for s in samples]
    assert (found.box_px.min, found.box_px.max) == (pytest.approx(min(sizes)), pytest.approx(max(sizes)))
    assert found.targets == {"annotated": 7, "fitted": 1}
    assert found.parts[MANO].rejects == {"no_mano": 1}
    assert found.residual_mm["annotated"].max < 0.5 and found.residual_px["fitted"].count == 1
    good = [e for row in ShardSet.open(uri, [MANO]) if (e := row.mano_target()) and e.is_good]
    assert found.good_targets == len(good) == 7 and found.bad_targets == {"few_fingers": 1}
    np.testing.assert_allclose(found.betas_std, np.std([e.pose.betas for e in good], axis=0), rtol=1e-5)


def test_shards_are_read_once_and_a_limit_stops_early(
    shard_set: tuple[str, list[HandSample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = shard_set
    loaded: list[int] = []
    load = ShardSet.load

    def counted(self: ShardSet, shard: int) -> LoadedShard:
        loaded.append(shard)
        return load(self, shard)

    monkeypatch.setattr(ShardSet, "load", counted)
    assert inspect_set(uri, hands=3).statistics.read == 9
    assert loaded == [0, 1, 2]
    loaded.clear()
    told: list[tuple[int, int]] = []
    found = inspect_set(uri, hands=3, limit=5, progress=lambda done, total, text="": told.append((done, total)))
    assert (found.statistics.read, loaded, told) == (5, [0, 1], [(4, 5), (5, 5)])


def test_a_sidecar_of_other_images_is_left_out_and_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "toy")
    write_set(uri, make_samples(3))
    annotate_mano(uri)
    write_set(uri, make_samples(3, seed=1))
    found = inspect_set(uri).statistics
    assert list(found.parts) == ["images"] and found.left_out == [MANO]
    assert found.targets == {"annotated": 3}, "the images' own parameters"


def test_targets_of_another_hand_are_refused_as_by_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "toy")
    write_set(uri, make_samples(3))
    annotate_mano(uri)
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(random_fields()))
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    with pytest.raises(ShardError, match=r"mano: its targets were made with the hand model \w+, and the inspection"):
        inspect_set(uri)


@pytest.mark.parametrize("with_sidecar", [False, True])
@pytest.mark.parametrize("with_camera", [False, True])
def test_meshes_of_both_hands_lie_in_the_stored_image(tmp_path: Path, with_sidecar: bool, with_camera: bool) -> None:
    """HaMeR's assumed camera shows a fit where its keypoints are; an annotated mesh needs the true one."""
    samples = make_samples(4, sides=("right", "left"))
    if not with_camera:
        bare = dict.fromkeys(("camera", "joints_cam_m", "joints_3d_valid", "vertices_cam_m", "mano"))
        samples = [dataclasses.replace(s, **bare) for s in samples]
    uri = str(tmp_path / "toy")
    write_set(uri, samples)
    annotate_mano(uri)
    rows = list(ShardSet.open(uri, [MANO] if with_sidecar else []))
    for row, truth in zip(rows, make_samples(4, sides=("right", "left")), strict=True):
        mesh = mesh_of(row, target_of(row))
        if not with_camera and not with_sidecar:
            assert mesh is None
            continue
        assert mesh is not None and truth.camera is not None
        seen, wanted = Camera(mesh.K_px).project(mesh.vertices_cam_m), truth.camera.project(truth.vertices_cam_m)
        if with_camera:
            np.testing.assert_allclose(seen, wanted, atol=0.01)
        else:  # the joints are where they were; of the skin the fit knows nothing
            np.testing.assert_allclose(seen.mean(0), wanted.mean(0), atol=5)
        assert mesh.K_px[0, 0] == (300 if with_camera else pytest.approx(FOCAL * 200))
        a, b, c = (mesh.vertices_cam_m[mesh.faces[:, k]] - mesh.vertices_cam_m.mean(0) for k in range(3))
        volume = (a * np.cross(b, c)).sum(1)
        assert volume.sum() > 0, "faces look outwards, on left hands too"


def test_the_sheet_shows_what_is_there(shard_set: tuple[str, list[HandSample]]) -> None:
    uri, _ = shard_set
    annotate_mano(uri)
    png = inspect_set(uri, hands=9).sheet_png
    assert png == inspect_set(uri, hands=9).sheet_png
    width, height = Image.open(io.BytesIO(png)).size
    assert width > 9 * 200 and height > 3 * 200, "three columns for each of three hands in a row, three rows"


def test_keypoints_are_drawn_where_they_are_on_left_hands_too() -> None:
    black = cv2.imencode(".png", np.zeros((160, 200, 3), np.uint8))[1].tobytes()
    left = dataclasses.replace(make_samples(2, sides=("right", "left"))[1], image=black, mano=None, vertices_cam_m=None)
    image = np.asarray(Image.open(io.BytesIO(set_sheet([ShardSample(left, 0, {})], [], ""))))
    tile = image[28:228, 216:416]
    (to_tile,) = crop_affine(
        box_center_px(left.box_xyxy_px)[None], np.ptp(left.box_xyxy_px.reshape(2, 2), 0).max(keepdims=True) * 1.5,
        np.zeros(1), 200,
    )  # fmt: skip
    x, y = np.rint(to_tile[:, :2] @ left.joints_2d_px[20] + to_tile[:, 2]).astype(int)
    np.testing.assert_allclose(tile[y, x], FINGER_RGB[4], atol=3)


def test_captions_say_what_rings_and_colors_mean(
    shard_set: tuple[str, list[HandSample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = shard_set
    annotate_mano(uri)
    captions: list[str] = []
    drawn = sheet.contact_sheet
    monkeypatch.setattr(
        sheet, "contact_sheet", lambda *a: captions.extend(text for row in a[1] for text in row) or drawn(*a)
    )
    inspect_set(uri, hands=9)
    assert sum(text.startswith("annotated (green)") for text in captions) == 7
    assert sum(text.startswith("fitted (blue)") for text in captions) == 1
    assert "14 of 21 joints, 2 hidden\n(rings)" in captions or "14 of 21 joints, 2 hidden (rings)" in captions


def test_the_box_is_outlined_on_its_own_color() -> None:
    hand = make_samples(1)[0]
    yellow = cv2.imencode(".png", np.full((160, 200, 3), sheet.BOX_RGB[::-1], np.uint8))[1].tobytes()
    tile = sheet.boxed_image(decode_rgb(dataclasses.replace(hand, image=yellow)), hand.box_xyxy_px)
    x0, y0, _, y1 = np.rint((hand.box_xyxy_px + 0.5) * tile.shape[1] / 200 - 0.5).astype(int)
    across = tile[(y0 + y1) // 2, max(0, x0 - 6) : x0 + 7].astype(int).sum(-1)
    assert across.min() < 0.6 * sum(sheet.BOX_RGB)


def test_the_step_writes_both_files_and_a_table(shard_set: tuple[str, list[HandSample]], tmp_path: Path) -> None:
    uri, _ = shard_set
    workspace = Workspace(tmp_path / "w", str(tmp_path / "w" / "shards"))
    before = inspection.input_digests(workspace, uri)
    annotate_mano(uri)
    assert inspection.input_digests(workspace, uri).keys() - before.keys() == {MANO}
    receipt = inspection.inspect(workspace, uri, lambda *_: None, hands=2)
    assert receipt.folder == str(tmp_path / "w/reports/inspect/freihand_synth/test")
    assert json.loads(Path(receipt.uri).read_text())["read"] == 9
    rows = dict(inspection.table(receipt))
    assert rows["hands in shards"] == "9 of 9 planned"
    assert rows["mano, rejected, no_mano"] == "1"
    assert rows["has joints_cam_m"] == "7 (77.8 %)"
    assert rows["MANO targets"] == "annotated 7, fitted 1"
    assert inspection.sheet_as_data_url(receipt).startswith("data:image/jpeg;base64,/9j/")


def test_a_set_without_samples_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no images shards here"):
        subject.inspect_set(str(tmp_path))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
