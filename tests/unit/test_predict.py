"""From a photo to placed hands and files, with a detector that knows the answer and an untrained model."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT
from maskhand.geometry2d import box_center_px
from maskhand.hand.assumed_camera import FOCAL
from maskhand.hand.camera import project_crop, translation_on_points
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.crop import crop_side_px
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.vq_mano import VQMano
from maskhand.predict import PredictError, detect, drawing, files, hypothesis_files, read_photo
from maskhand.predict import hands as subject
from maskhand.predict.network_hands import distinct_sequences
from maskhand.recipe_files import load_recipe

predict_hands = partial(subject.predict_hands, method="model")
predict_photo = partial(files.predict_photo, method="model")

RECIPE = load_recipe("tiny", ["data.crop_px=64", "model.backbone.kwargs={embed_dim: 48, depth: 1, num_heads: 3}"])
SIZE = (150, 240)
BOX = (60.0, 30.0, 130.0, 120.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ModelBundle:
    torch.manual_seed(0)
    tokenizer = VQMano(RECIPE.tokenizer)
    tokenizer.quantizer.codebook.normal_()
    model = build_model(RECIPE, tokenizer, ManoLayer.from_default())
    # Initial weights give nearly the same output for every image; larger output layers make it depend on the image.
    with torch.no_grad():
        for parameter in model.shape_camera.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return ModelBundle.save(tmp_path_factory.mktemp("model") / "bundle", model.eval(), RECIPE, {})


@pytest.fixture
def photo() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 5)


POINTS = np.random.default_rng(1).uniform((60, 30), (130, 120), (21, 2)).astype(np.float32)


class FakeDetector:
    """Sees the same 21 points in every box; `mirrored` where the photo is."""

    def __init__(self, mirrored: bool = False, right: float = 0.9, confidence: float = 1.0) -> None:
        self.points = POINTS * (-1, 1) + (SIZE[1] - 1, 0) if mirrored else POINTS
        self.right, self.confidence = right, confidence
        self.calls = 0

    def detect(self, images, boxes, sides=None) -> Detections:
        n = len(images)
        self.calls += n
        confidence = self.confidence * np.tile(np.linspace(0.1, 1, 21, dtype=np.float32), (n, 1))
        return Detections(
            np.tile(self.points.astype(np.float32), (n, 1, 1)),
            confidence,
            np.ones(n, np.float32),
            np.full(n, self.right, np.float32),
        )


def found_hand(box: np.ndarray, side: str, confidence: float = 1.0) -> HandBox:
    return HandBox(box, side, 0.9, FakeDetector(confidence=confidence).detect([None], [box]))


@pytest.fixture
def use_detector(monkeypatch):
    def use(detector: FakeDetector, hands: list[HandBox] | None = None) -> None:
        monkeypatch.setattr(detect, "load_detector", lambda name, assets: detector)
        monkeypatch.setattr(detect, "find_hands", lambda image, assets: hands or [])

    return use


def test_a_hand_stands_where_its_keypoints_or_the_network_say(bundle, photo, use_detector):
    """Place and size in the photo are as the keypoints ask, or as the network's crop camera sees them."""
    use_detector(FakeDetector())
    hand = predict_hands(photo, bundle, [BOX])[0]
    assert hand.side == "right" and hand.K_px[0, 0] == FOCAL * SIZE[1]
    given = (hand.joints_cam_m - hand.transl_cam_m, POINTS, hand.keypoints_confidence, hand.K_px)
    expected = translation_on_points(*(values[None] for values in given))[0]
    np.testing.assert_allclose(hand.transl_cam_m, expected, atol=1e-4)
    projected = hand.joints_cam_m @ hand.K_px.T
    np.testing.assert_allclose(hand.joints_px, projected[:, :2] / projected[:, 2:], atol=1e-6)

    own = predict_hands(photo, bundle, [BOX], camera="model")[0]
    np.testing.assert_array_equal(own.crop_camera, hand.crop_camera)
    joints = torch.from_numpy(own.joints_cam_m - own.transl_cam_m)[None]
    in_crop = project_crop(joints, torch.from_numpy(own.crop_camera).double()[None])[0].numpy()
    side_px, center = (
        crop_side_px(np.array(BOX), RECIPE.data.box_scale, RECIPE.data.crop_aspect),
        box_center_px(np.array(BOX)),
    )
    np.testing.assert_allclose(own.joints_px, center + side_px * in_crop, atol=1)


def test_parameters_reproduce_the_mesh_for_both_sides(bundle, photo, use_detector):
    for side in ("right", "left"):
        use_detector(FakeDetector())
        hand = predict_hands(photo, bundle, [BOX], side)[0]
        layer = ManoLayer(load_hand_model(default_hand_path(side)))
        to_torch = lambda a: torch.tensor(np.asarray(a)[None], dtype=torch.float32)  # noqa: E731
        mesh = layer.from_axis_angle(to_torch(hand.pose_aa), to_torch(hand.betas), to_torch(hand.transl_cam_m))
        np.testing.assert_allclose(mesh.vertices_m[0], hand.vertices_cam_m, atol=2e-5)
        np.testing.assert_allclose(mesh.joints_m[0], hand.joints_cam_m, atol=2e-5)
        volume = trimesh.Trimesh(hand.vertices_cam_m, hand.faces, process=False).volume
        assert volume > 0, "the faces must look outwards on either side"


def test_the_mirrored_photo_gives_the_mirrored_hand(bundle, photo, use_detector):
    use_detector(FakeDetector())
    right = predict_hands(photo, bundle, [BOX], "right", focal_px=300.0)[0]
    use_detector(FakeDetector(mirrored=True))
    x0, y0, x1, y1 = BOX
    mirrored_box = (SIZE[1] - 1 - x1, y0, SIZE[1] - 1 - x0, y1)
    left = predict_hands(photo[:, ::-1].copy(), bundle, [mirrored_box], "left", focal_px=300.0)[0]
    np.testing.assert_allclose(left.vertices_cam_m, right.vertices_cam_m * MIRROR_POINT, atol=1e-4)
    np.testing.assert_allclose(left.joints_px, right.joints_px * (-1, 1) + (SIZE[1] - 1, 0), atol=0.05)
    np.testing.assert_allclose(left.pose_aa, right.pose_aa * MIRROR_AXIS_ANGLE, atol=1e-4)
    np.testing.assert_allclose(left.transl_cam_m, right.transl_cam_m * MIRROR_POINT, atol=1e-4)


def test_the_side_is_taken_from_the_detector_unless_given(bundle, photo, use_detector):
    for right_probability, side in ((0.9, "right"), (0.2, "left")):
        use_detector(FakeDetector(right=right_probability))
        assert predict_hands(photo, bundle, [BOX])[0].side == side
        assert predict_hands(photo, bundle, [BOX], "right")[0].side == "right"


def test_depth_is_proportional_to_the_given_focal_length(bundle, photo, use_detector):
    use_detector(FakeDetector())
    near, far = (predict_hands(photo, bundle, [BOX], focal_px=f)[0] for f in (5000.0, 10000.0))
    # as seen from so far away; nearer, perspective makes the near joints larger
    assert far.joints_cam_m[:, 2].mean() == pytest.approx(2 * near.joints_cam_m[:, 2].mean(), rel=0.01)
    np.testing.assert_allclose(far.vertices_cam_m - far.transl_cam_m, near.vertices_cam_m - near.transl_cam_m)


def write_png(path: Path, image: np.ndarray) -> Path:
    cv2.imwrite(str(path), image[:, :, ::-1])
    return path


def test_images_number_the_hands_as_the_files_do(bundle, photo, use_detector, monkeypatch, tmp_path):
    boxes = (np.array(BOX, np.float32), np.array((130, 20, 220, 110), np.float32))
    use_detector(FakeDetector(), [found_hand(b, side) for b, side in zip(boxes, ("right", "left"), strict=True)])
    labels, captions = [], []
    place, sheet = drawing.place_labels, hypothesis_files.contact_sheet
    monkeypatch.setattr(drawing, "place_labels", lambda *a: labels.append(a[0]) or place(*a))
    monkeypatch.setattr(hypothesis_files, "contact_sheet", lambda *a, **k: captions.extend(a[1]) or sheet(*a, **k))
    predict_photo(write_png(tmp_path / "two.png", photo), bundle, tmp_path / "out", hypotheses=2)
    assert labels[0] == [["0 right, score 0.90", "0 right", "0"], ["1 left, score 0.90", "1 left", "1"]]
    assert [row[0] for row in captions] == ["hand 0, right", "hand 1, left"]


def test_tiles_of_a_large_photo_do_not_alias(bundle, use_detector, monkeypatch, tmp_path):
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    use_detector(FakeDetector())
    tiles, sheet = [], hypothesis_files.contact_sheet
    monkeypatch.setattr(hypothesis_files, "contact_sheet", lambda *a, **k: tiles.extend(a[0]) or sheet(*a, **k))
    box = (40.0, 40.0, 900.0, 1160.0)
    predict_photo(write_png(tmp_path / "large.png", stripes), bundle, tmp_path / "out", box, hypotheses=1)
    inner = tiles[0][0][120:200, 120:180]  # below and beside the keypoints
    assert abs(inner.mean() - 127.5) < 2 and inner.std() < 4


def test_a_huge_photo_is_shown_smaller(bundle, photo, use_detector, monkeypatch):
    use_detector(FakeDetector())
    huge = cv2.resize(photo, (960, 600), interpolation=cv2.INTER_CUBIC)
    hand = predict_hands(photo, bundle, [BOX])[0]
    huge_from_photo = np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]])  # of pixel centers
    same = replace(
        hand,
        K_px=huge_from_photo @ hand.K_px,
        joints_px=4 * hand.joints_px + 1.5,
        keypoints_px=4 * hand.keypoints_px + 1.5,
        box_xyxy_px=4 * hand.box_xyxy_px + 1.5,
    )
    assert drawing.draw_hands(huge, [same]).shape == huge.shape
    monkeypatch.setattr(drawing, "VIEW_PX", (1, 240))
    shown, wanted = drawing.draw_hands(huge, [same]), drawing.draw_hands(photo, [hand])
    assert shown.shape == wanted.shape
    assert np.abs(shown.astype(int) - wanted).mean() < 1.5 < 4 < np.abs(wanted.astype(int) - photo).mean()


def test_files_of_a_photo_with_two_hands(bundle, photo, use_detector, tmp_path):
    boxes = (np.array(BOX, np.float32), np.array((130, 20, 220, 110), np.float32))
    hands = [found_hand(box, side) for box, side in zip(boxes, ("right", "left"), strict=True)]
    use_detector(FakeDetector(), hands)
    paths = predict_photo(write_png(tmp_path / "two.png", photo), bundle, tmp_path / "out")
    names = [path.name for path in paths]
    assert names == ["two_overlay.png", "two_hand0.obj", "two_hand1.obj", "two.glb", "two.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    overlay = cv2.imread(str(paths[0]))[:, :, ::-1].astype(int)
    original = cv2.resize(photo, (480, 300), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(overlay[:300, :480], original)
    beside = np.abs(overlay[:300, -480:] - original).max(-1)
    assert 0.05 < (beside > 8).mean() < 0.6, "the same picture with its hands"
    facts = json.loads(paths[-1].read_text())
    assert [hand["side"] for hand in facts["hands"]] == ["right", "left"]
    scene = trimesh.load(paths[3])
    assert len(scene.geometry) == 2
    for hand, path in zip(facts["hands"], paths[1:3], strict=True):
        mesh = trimesh.load(path, process=False)
        assert mesh.vertices.shape == (778, 3) and mesh.faces.shape == (1538, 3) and mesh.volume > 0
        mano = hand["mano"]
        assert np.shape(mano["hand_pose"]) == (15, 3) and np.shape(mano["betas"]) == (10,)
        assert np.shape(hand["joints_cam_m"]) == (21, 3) and len(hand["token_confidence_of_joints"]) == 16
        assert len(hand["tokens"]) == len(hand["token_confidence"]) == bundle.model.num_tokens
        assert np.log(hand["token_confidence"]).mean() == pytest.approx(hand["log_probability"], abs=0.01)
        assert hand["camera"]["crop_is_mirrored"] == (hand["side"] == "left")
        K, points = np.array(hand["camera"]["K_px"]), np.array(hand["joints_cam_m"])
        projected = points @ K.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], hand["joints_px"], atol=0.02)


def test_hypotheses_are_ranked_placed_and_counted(bundle, photo, use_detector, monkeypatch, tmp_path):
    use_detector(FakeDetector())
    passes = []
    encode = bundle.model.encode
    monkeypatch.setattr(bundle.model, "encode", lambda *a, **k: passes.append(1) or encode(*a, **k))
    second = (130.0, 20.0, 220.0, 110.0)
    hands = predict_hands(photo, bundle, [BOX, second], "left", hypotheses=12)
    assert len(passes) == 1, "the image is encoded once for the prediction and all hypotheses"
    for hand, alone in zip(hands, predict_hands(photo, bundle, [BOX, second], "left"), strict=True):
        np.testing.assert_array_equal(hand.vertices_cam_m, alone.vertices_cam_m)
        assert alone.hypotheses == () and sum(h.drawn for h in hand.hypotheses) == 12
        scores = [h.score for h in hand.hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({h.pose_aa.tobytes() for h in hand.hypotheses}) == len(hand.hypotheses) > 1
        layer = ManoLayer(load_hand_model(default_hand_path("left")))
        for h in hand.hypotheses:
            given = (
                torch.tensor(np.asarray(a)[None], dtype=torch.float32) for a in (h.pose_aa, h.betas, h.transl_cam_m)
            )
            np.testing.assert_allclose(layer.from_axis_angle(*given).vertices_m[0], h.vertices_cam_m, atol=2e-5)
            decoded = bundle.model.tokenizer.decode_codes(torch.from_numpy(h.tokens)[None])[0]
            mirrored = torch.from_numpy(h.pose_aa * MIRROR_AXIS_ANGLE).float()
            np.testing.assert_allclose(axis_angle_to_matrix(mirrored), decoded, atol=1e-4)
        joints = np.concatenate([np.tile(h.joints_cam_m - h.joints_cam_m[0], (h.drawn, 1, 1)) for h in hand.hypotheses])
        by_hand = np.sqrt(((joints - joints.mean(0)) ** 2).sum(-1).mean(0))
        np.testing.assert_allclose(hand.joint_spread_m, by_hand, atol=1e-9)
    with pytest.raises(ValueError, match="there are no hypotheses"):
        _ = predict_hands(photo, bundle, [BOX])[0].joint_spread_m

    paths = predict_photo(write_png(tmp_path / "one.png", photo), bundle, tmp_path / "out", BOX, hypotheses=12)
    assert [p.name for p in paths[3:]] == ["one_hypotheses.png", "one_hand0_hypotheses.glb", "one.json"]
    facts = json.loads(paths[-1].read_text())["hands"][0]
    assert len(trimesh.load(paths[-2]).geometry) == min(6, len(facts["modes"]))
    members = [member for mode in facts["modes"] for member in mode["members"]]
    assert sorted(members) == list(range(len(facts["hypotheses"])))
    for mode in facts["modes"]:
        assert mode["share"] == pytest.approx(
            sum(facts["hypotheses"][m]["drawn"] for m in mode["members"]) / 12, abs=1e-3
        )
        assert mode["medoid"] in mode["members"]
    assert np.shape(facts["hypotheses"][0]["mano"]["hand_pose"]) == (15, 3) and len(facts["joint_spread_mm"]) == 21


def test_tokens_filled_in_end_with_the_hand_of_the_most_probable_codes(bundle, photo, use_detector):
    use_detector(FakeDetector())
    second = (130.0, 20.0, 220.0, 110.0)
    hands = predict_hands(photo, bundle, [BOX, second], "left", fill_in=5)
    for hand, alone in zip(hands, predict_hands(photo, bundle, [BOX, second], "left"), strict=True):
        np.testing.assert_array_equal(hand.vertices_cam_m, alone.vertices_cam_m)
        assert alone.fill_in == () and not hand.fill_in[0].fixed.any() and hand.fill_in[-1].fixed.all()
        for step in hand.fill_in:
            assert ((step.tokens < bundle.model.mask_id) == step.fixed).all()
        last = hand.fill_in[-1]
        decoded = bundle.model.tokenizer.decode_codes(torch.from_numpy(last.tokens)[None])[0]
        mirrored = torch.from_numpy(last.pose_aa * MIRROR_AXIS_ANGLE).float()
        np.testing.assert_allclose(axis_angle_to_matrix(mirrored), decoded, atol=1e-4)


def test_a_token_sequence_that_was_sampled_twice_is_one_hypothesis():
    first, counts = distinct_sequences(np.array([[3, 1], [0, 2], [3, 1], [9, 9], [3, 1]]))
    assert first.tolist() == [0, 1, 3] and counts.tolist() == [3, 1, 1]


def test_a_network_without_a_distribution_refuses_hypotheses(photo, use_detector, tmp_path):
    use_detector(FakeDetector())
    recipe = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"decoder": "regression"})})
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default())
    bundle = ModelBundle.save(tmp_path / "bundle", model.eval(), recipe, {})
    assert len(predict_hands(photo, bundle, [BOX])) == 1
    with pytest.raises(PredictError, match="predicts one hand per image"):
        predict_hands(photo, bundle, [BOX], hypotheses=3)


def test_errors_are_sentences(bundle, photo, use_detector, tmp_path):
    use_detector(FakeDetector())
    good = write_png(tmp_path / "photo.png", photo)
    with pytest.raises(PredictError, match=r"photo\.png: no hand found; give its box"):
        predict_photo(good, bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PredictError, match=rf"{tmp_path}: this is a folder, expected a file; give one image"):
        read_photo(tmp_path)
    with pytest.raises(PredictError, match=r"nowhere\.jpg: there is no such file"):
        predict_photo(tmp_path / "nowhere.jpg", bundle, tmp_path / "out")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name in ("text.jpg", "empty.jpg"):
        with pytest.raises(PredictError, match="not an image that can be decoded"):
            predict_photo(tmp_path / name, bundle, tmp_path / "out")
    for box in ((100, 30, 60, 120), (0, 0, 1, 1), (500, 500, 600, 600), (0, 0, float("nan"), 9)):
        with pytest.raises(PredictError, match="expected x0,y0,x1,y1"):
            predict_photo(good, bundle, tmp_path / "out", box=box)
    for focal in (0.0, -5.0, float("inf")):
        with pytest.raises(PredictError, match="focal length"):
            predict_photo(good, bundle, tmp_path / "out", box=BOX, focal_px=focal)


def test_a_damaged_model_is_an_error(bundle, photo, use_detector, monkeypatch):
    use_detector(FakeDetector())
    monkeypatch.setattr(bundle.model.norm.weight, "data", bundle.model.norm.weight.data * float("nan"))
    with pytest.raises(PredictError, match="not finite; train it again"):
        predict_hands(photo, bundle, [BOX])
