"""Every keypoint detector keeps the protocol; trained ones find a rendered hand whichever way it is turned."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from maskhand.annotate import hand_finder
from maskhand.annotate.detectors import Detections, HandBox
from maskhand.annotate.hand_finder import HandFinder, distinct_hands, find_hands
from maskhand.annotate.openpose import OpenPoseHand
from maskhand.annotate.openpose_net import HandPoseNet
from maskhand.annotate.palms import anchors
from maskhand.annotate.registry import DETECTORS, load_detector
from maskhand.annotate.upright_crop import square_affine, square_crop
from maskhand.conventions import Side
from maskhand.hand.layer import ManoLayer
from maskhand.render import overlay_mesh

SKIN = (224, 172, 140)
UNTRAINED = {"openpose-hand"}
"""Detectors whose weights are not open: here they run with random ones, so only the protocol can be checked."""


@dataclass(frozen=True)
class HandImage:
    image: np.ndarray
    joints_px: np.ndarray
    box_xyxy_px: np.ndarray
    side: Side


def render_hand(turn_deg: float, side: Side = "right", size: tuple[int, int] = (240, 200)) -> HandImage:
    """The open hand, palm to the camera, turned clockwise from fingers-up; a left hand is the image mirrored."""
    layer, (width, height) = ManoLayer.from_default(), size
    upright = Rotation.from_rotvec([0, 0, np.pi / 2]) * Rotation.from_rotvec([np.pi / 2, 0, 0])
    pose = np.zeros((1, 16, 3))
    pose[0, 0] = (Rotation.from_rotvec([0, 0, np.deg2rad(turn_deg)]) * upright).as_rotvec()
    mesh = layer.from_axis_angle(torch.tensor(pose, dtype=torch.float32), torch.zeros(1, 10))
    joints, vertices = (getattr(mesh, name)[0].double().numpy() for name in ("joints_m", "vertices_m"))
    shift = np.array([0, 0, 0.6]) - joints.mean(0)
    K = np.array([[450.0, 0, width / 2], [0, 450, height / 2], [0, 0, 1]])
    image = overlay_mesh(
        np.full((height, width, 3), (70, 90, 110), np.uint8), vertices + shift, layer.faces.numpy(), K, SKIN
    )
    uvw = (joints + shift) @ K.T
    points = uvw[:, :2] / uvw[:, 2:]
    if side == "left":
        image, points = np.ascontiguousarray(image[:, ::-1]), points * [-1, 1] + [width - 1, 0]
    return HandImage(image, points, np.concatenate([points.min(0), points.max(0)]), side)


def error(points_px: np.ndarray, hand_image: HandImage) -> float:
    """Mean distance over the box's longer side."""
    box = hand_image.box_xyxy_px
    return float(np.linalg.norm(points_px - hand_image.joints_px, axis=1).mean() / (box[2:] - box[:2]).max())


@pytest.fixture(scope="module")
def hand_images():
    return [render_hand(t, s, size) for t, s, size in ((0, "right", (240, 200)), (100, "left", (220, 260)))]


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def detector(request, assets, tmp_path_factory):
    if request.param not in UNTRAINED:
        return load_detector(request.param, assets)
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(HandPoseNet().state_dict(), folder / "hand_pose_model.pth")
    return OpenPoseHand.from_file(folder / "hand_pose_model.pth", input_px=96)


def test_shapes_ranges_and_identity(detector, hand_images):
    images, boxes = [p.image for p in hand_images], np.stack([p.box_xyxy_px for p in hand_images])
    before = [image.copy() for image in images]
    found = detector.detect(images, boxes, [p.side for p in hand_images])
    assert found.keypoints_px.shape == (2, 21, 2) and found.confidence.shape == (2, 21)
    assert found.presence.shape == found.right_probability.shape == (2,)
    for values in (found.confidence, found.presence, found.right_probability):
        assert values.dtype == np.float32 and (values >= 0).all() and (values <= 1).all()
    assert np.isfinite(found.keypoints_px).all() and found.keypoints_px.dtype == np.float32
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True)), "images are not written to"
    assert detector.name in DETECTORS and detector.version


def test_a_hand_does_not_depend_on_its_neighbors_or_on_when_it_is_seen(detector, hand_images):
    images, boxes = [p.image for p in hand_images], np.stack([p.box_xyxy_px for p in hand_images])
    together = detector.detect(images, boxes)
    for k in (1, 0):
        alone = detector.detect([images[k]], boxes[k : k + 1])
        np.testing.assert_array_equal(alone.keypoints_px[0], together.keypoints_px[k])
        np.testing.assert_array_equal(alone.confidence[0], together.confidence[k])


def test_depth_turns_with_the_image(assets):
    """World landmarks and depth are in the axes of the image, whichever way the detector turned its crop."""
    seen = {}
    for turn_deg in (0, 90):
        hand_image = render_hand(turn_deg, "right")
        found = load_detector("litert-hand", assets).detect([hand_image.image], hand_image.box_xyxy_px[None], ["right"])
        assert found.world_m.shape == (1, 21, 3) and found.z_px.shape == (1, 21)
        assert found.world_m.dtype == found.z_px.dtype == np.float32
        seen[turn_deg] = found
    flat, turned = (found.world_m[0] - found.world_m[0].mean(0) for found in seen.values())
    best = Rotation.align_vectors(turned, flat)[0].as_rotvec(degrees=True)
    assert abs(best[2]) == pytest.approx(90, abs=15) and np.linalg.norm(best[:2]) < 25
    moved = seen[90].keypoints_px[0, 9] - seen[90].keypoints_px[0, 0]
    assert moved @ (turned[9] - turned[0])[:2] > 0, "landmarks and keypoints point alike"


def test_no_hands_in_no_hands_out(detector):
    assert len(detector.detect([], np.zeros((0, 4)))) == 0


def test_inputs_that_do_not_fit_are_named(detector, hand_images):
    image, box = hand_images[0].image, hand_images[0].box_xyxy_px[None]
    with pytest.raises(ValueError, match=r"expected \(2, 4\)"):
        detector.detect([image, image], box)
    with pytest.raises(ValueError, match="expected uint8"):
        detector.detect([image.astype(np.float32)], box)
    with pytest.raises(ValueError, match="box 0 is"):
        detector.detect([image], np.array([[10.0, 10, 10, 50]]))
    with pytest.raises(ValueError, match="sides has 2"):
        detector.detect([image], box, ["right", "left"])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("turn_deg", [0, 75, 180, 290])
def test_trained_detectors_find_a_hand_at_any_turn(assets, side, turn_deg):
    hand_image = render_hand(turn_deg, side)
    for name in set(DETECTORS) - UNTRAINED:
        detector = load_detector(name, assets)
        for known in ([side], None):
            found = detector.detect([hand_image.image], hand_image.box_xyxy_px[None], known)
            assert error(found.keypoints_px[0], hand_image) < 0.07, name
            assert found.presence[0] > 0.5 and (found.right_probability[0] > 0.5) == (side == "right"), name
            assert found.confidence.mean() > 0.4, name


def test_a_large_square_is_the_crop_of_the_whole_image_shrunk():
    rng, size = np.random.default_rng(0), np.array([1200, 900])
    photo = cv2.GaussianBlur(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8), (0, 0), 1.5)
    for center in (*rng.uniform(0, 1, (8, 2)) * size, (-200, 450), (5000, 450)):  # the last square is all outside
        side, angle = rng.uniform(460, 1500), rng.uniform(-np.pi, np.pi)
        factor = 2 * 224 / side
        small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        in_small = (np.asarray(center) + 0.5) * factor - 0.5
        expected = cv2.warpAffine(small, square_affine(in_small, side * factor, angle, 224), (224, 224))
        found = square_crop(photo, np.asarray(center), side, angle, 224)
        off = np.abs(found.astype(int) - expected)
        assert off.max() <= 3 and off.mean() < 0.3


def test_unknown_detectors_are_named():
    with pytest.raises(ValueError, match="litert-hand"):
        load_detector("litert", "nowhere")


def test_both_hands_of_a_image_are_found_with_their_sides(assets):
    right, left = render_hand(10, "right", (260, 220)), render_hand(-40, "left", (260, 220))
    photo = np.full((480, 640, 3), (70, 90, 110), np.uint8)
    photo[30:250, 20:280], photo[220:440, 350:610] = right.image, left.image
    hands = find_hands(photo, assets)
    assert sorted(h.side for h in hands) == ["left", "right"]
    for hand_image, corner in ((right, (20, 30)), (left, (350, 220))):
        hand = next(h for h in hands if h.side == hand_image.side)
        assert error(hand.keypoints_px - corner, hand_image) < 0.07
        assert np.abs(hand.box_xyxy_px - hand_image.box_xyxy_px - [*corner, *corner]).max() < 15
        assert 0.6 <= hand.score <= 1


def test_a_small_hand_of_a_large_photo_is_found(assets):
    hand_image = render_hand(20)
    photo = np.full((900, 1200, 3), (70, 90, 110), np.uint8)
    photo[600:800, 700:940] = hand_image.image
    hands = find_hands(photo, assets)
    assert len(hands) == 1 and error(hands[0].keypoints_px - [700, 600], hand_image) < 0.07


def test_a_huge_photo_is_searched_in_a_smaller_copy(assets, monkeypatch):
    photo = render_hand(20).image
    (hand,) = find_hands(photo, assets)
    monkeypatch.setattr(hand_finder, "LONGEST_PX", max(photo.shape))
    (enlarged,) = find_hands(cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), assets)
    assert enlarged.box_xyxy_px.dtype == np.float32 and enlarged.side == hand.side
    np.testing.assert_allclose(enlarged.keypoints_px, 3 * hand.keypoints_px + 1, atol=6)
    np.testing.assert_allclose(enlarged.box_xyxy_px, 3 * hand.box_xyxy_px + 1, atol=6)


def test_a_image_without_a_hand_has_none(assets):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    finder = HandFinder(assets)
    assert finder.find(noise) == [] and finder.find(np.zeros((90, 300, 3), np.uint8)) == []


NOTHING = Detections(np.zeros((1, 21, 2)), np.zeros((1, 21)), np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    ("other", "side", "kept"),
    [
        ((40, 50, 60, 100), "left", False),  # a finger
        ((-30, 50, -10, 100), "left", False),  # a finger that the hand's own landmarks missed
        ((160, 50, 180, 100), "right", True),  # a small hand farther away
        ((30, 30, 100, 105), "left", True),  # the other fist before an open hand, wholly in its box
        ((30, 30, 100, 105), "right", False),  # bent fingers that pass for a hand
        ((60, 30, 180, 180), "right", True),  # hands that overlap
        ((10, 5, 95, 150), "left", False),  # the same hand found again
    ],
)
def test_a_part_of_a_better_hand_is_none_but_hands_that_hold_each_other_are(other, side, kept):
    boxes = np.array([(0, 0, 130, 150), other], np.float32)
    hand, second = HandBox(boxes[0], "right", 0.95, NOTHING), HandBox(boxes[1], side, 0.77, NOTHING)
    assert [found.score for found in distinct_hands([second, hand])] == ([0.95, 0.77] if kept else [0.95])


def test_a_crop_around_a_hand_is_enough(assets):
    """FreiHAND's images are such crops: often no palm is found in them, the hand still is."""
    finder, hand_image = HandFinder(assets), render_hand(60, size=(200, 200))
    (hand,) = finder._from_central_box(hand_image.image)
    assert isinstance(hand, HandBox) and hand.side == "right" and error(hand.keypoints_px, hand_image) < 0.07


def test_anchors_are_cell_centers_in_the_models_order():
    centers = anchors()
    assert centers.shape == (2016, 2)
    np.testing.assert_allclose(centers[[0, 1, 2, 48]] * 24, [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    np.testing.assert_allclose(
        centers[[1152, 1157, 1158, 2015]] * 12, [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [11.5, 11.5]]
    )
