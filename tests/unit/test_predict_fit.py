"""Hands by fit, by network and by both, from one detection; hands that were not seen."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.conventions import MIRROR_POINT
from maskhand.geometry2d import tight_box
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.models.bundle import ModelBundle
from maskhand.predict import PredictError, default_method, detect, predict_hands, predict_photo
from maskhand.steps import hands, prepare_predict
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.hands_report import findings as findings_of
from maskhand.workspace import Workspace
from support.known_hands import KnownHands, known_hands
from support.model_parts import small_model, small_recipe

PHOTO = np.zeros((224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def truth() -> KnownHands:
    return known_hands(8, seed=3)


def seen(truth: KnownHands, k: int, confidence: float = 0.9, side: str = "right") -> HandBox:
    """The k-th hand as a detector without error sees it."""
    world = truth.joints_m[k] - truth.joints_m[k].mean(0)
    meters_per_px = truth.joints_m[k, 0, 2] / truth.K_px[k, 0, 0]
    sign = MIRROR_POINT if side == "left" else np.ones(3)
    points = truth.joints_px[k] * sign[:2] + ([223, 0] if side == "left" else [0, 0])
    detection = Detections(
        points[None].astype(np.float32),
        np.full((1, 21), confidence, np.float32),
        np.ones(1, np.float32),
        np.full(1, 0.9 if side == "right" else 0.1, np.float32),
        z_px=((world[:, 2] - world[0, 2]) / meters_per_px)[None].astype(np.float32),
        world_m=(world * sign)[None].astype(np.float32),
    )
    return HandBox(tight_box(detection.keypoints_px[0]), side, 0.9, detection)


@pytest.fixture
def found(monkeypatch):
    def find(*hands: HandBox) -> None:
        monkeypatch.setattr(detect, "find_hands", lambda image, assets: list(hands))

    return find


def test_a_hand_is_found_again_without_any_network(truth, found) -> None:
    found(*(seen(truth, k) for k in range(8)))
    hands = predict_hands(PHOTO, None, focal_px=float(truth.K_px[0, 0, 0]))
    joints = np.stack([hand.joints_cam_m for hand in hands])
    errors = 1e3 * distances(procrustes_align(joints, truth.joints_m), truth.joints_m)
    assert errors.mean() < 6
    for hand in hands:
        assert hand.method == "fit" and hand.side_known and not hand.is_guess
        assert len(hand.tokens) == 0 and np.isnan(hand.log_probability)


def test_a_left_hand_is_the_mirror_image_of_the_right_one(truth, found) -> None:
    found(seen(truth, 0), seen(truth, 0, side="left"))
    right, left = predict_hands(PHOTO, None)
    assert (right.side, left.side) == ("right", "left")
    np.testing.assert_allclose(left.joints_cam_m, right.joints_cam_m * MIRROR_POINT, atol=1e-4)
    np.testing.assert_allclose(left.joints_px, right.joints_px * [-1, 1] + [223, 0], atol=0.05)


def test_the_finders_keypoints_are_not_detected_again(truth, found, monkeypatch) -> None:
    found(seen(truth, 1))
    monkeypatch.setattr(detect, "load_detector", lambda *a: pytest.fail("a second detection"))
    (hand,) = predict_hands(PHOTO, None)
    np.testing.assert_array_equal(hand.keypoints_px, truth.joints_px[1].astype(np.float32))


def test_a_hand_that_was_hardly_seen_is_called_a_guess(truth, found, tmp_path: Path) -> None:
    found(seen(truth, 2), seen(truth, 3, confidence=0.05))
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), PHOTO)
    summary = predict_photo(path, None, tmp_path / "out")[-1]
    sure, guess = json.loads(summary.read_text())["hands"]
    assert (sure["side"], sure["guess"]) == ("right", False)
    assert (guess["side"], guess["guess"]) == (None, True), "no side is invented"
    findings = findings_of([hand | {"status": "hand"} for hand in (sure, guess)])
    assert any("hand 1: side unknown" in line for line in findings) and any(
        "hand 1: a guess" in line for line in findings
    )
    assert any("hand 0: a joint is expected to be" in line for line in findings)
    assert len(predict_hands(PHOTO, None, min_confidence=0.5)) == 1
    assert [hand.side_known for hand in predict_hands(PHOTO, None, side="left")] == [True, True], "it was given"
    with pytest.raises(PredictError, match=r"no hand found whose keypoints have a mean confidence of 0\.95"):
        predict_photo(path, None, tmp_path / "none", min_confidence=0.95)


def test_nothing_seen_gives_a_hand_in_the_middle_of_its_box(truth, found) -> None:
    hidden = seen(truth, 4, confidence=0.0)
    found(hidden)
    (hand,) = predict_hands(PHOTO, None)
    assert hand.is_guess and np.isfinite(hand.vertices_cam_m).all()
    middle, box = hand.joints_px.mean(0), hidden.box_xyxy_px
    assert (middle > box[:2]).all() and (middle < box[2:]).all()


@pytest.mark.parametrize("wanted", [{"method": "model"}, {"method": "refine"}, {"camera": "model"}, {"hypotheses": 3}])
def test_requests_without_the_needed_network_are_errors(wanted) -> None:
    with pytest.raises(PredictError, match="a network is needed"):
        predict_hands(PHOTO, None, **wanted)


def test_a_refined_hand_has_the_confidence_of_a_fit_and_listens_to_the_network(truth, found) -> None:
    recipe = small_recipe(pose2d_tokens=21)
    model = small_model(recipe)
    bundle = ModelBundle(model, recipe, {}, model.mano.digest, "")
    found(seen(truth, 6))
    fit, refined, network = (
        predict_hands(PHOTO, None if method == "fit" else bundle, method=method)[0]
        for method in ("fit", "refine", "model")
    )
    assert np.isfinite(refined.p_within_10mm).all() and np.isfinite(refined.joint_error_mm).all()
    assert np.isnan(network.p_within_10mm).all(), "this network is not calibrated"

    def apart(hand, other):
        return distances(procrustes_align(hand.joints_cam_m[None], other.joints_cam_m[None]), other.joints_cam_m).mean()

    assert apart(refined, fit) > 0 and apart(refined, network) < apart(fit, network)


def test_a_photo_needs_nothing_that_was_trained_here(
    truth, found, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`maskhand predict` on a fresh machine: the open model refines a fit, or there is a fit alone."""
    found(seen(truth, 5))
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), PHOTO)
    home = Workspace(tmp_path / "workspace", str(tmp_path / "shards"))
    home.assets.parent.mkdir()
    home.assets.symlink_to(assets)

    notes: list[str | None] = []

    def method(**options) -> str:
        run = prepare_predict.prepare_run(home, [path], tmp_path / "out", GivenOptions(again=True, **options))
        notes.append(run.note)
        hands.predict(run)
        return json.loads((tmp_path / "out" / "photo.json").read_text())["hands"][0]["method"]

    assert method() == "refine" and method(method="model") == "model" and method(method="fit") == "fit"
    with monkeypatch.context() as patch:
        patch.setattr(default_method, "open_hand_digest", lambda: "that of another hand")
        assert method() == "fit"
    assert notes[:3] == [None] * 3 and "trained with the open hand, and MASKHAND_MANO_DIR has another" in notes[3]
    with pytest.raises(PredictError, match="--model DIR: a fit uses no network; add --method model"):
        prepare_predict.prepare_run(home, [path], tmp_path / "out", GivenOptions(model="DIR", method="fit"))
