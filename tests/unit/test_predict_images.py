"""Hands of several images predicted together are those of each image alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.geometry2d import tight_box
from maskhand.models.bundle import ModelBundle
from maskhand.predict import PredictError, detect, predict_hands, predict_images, reconstruct
from maskhand.predict.records import Hypothesis, PlacedHand, PredictedHand
from support.known_hands import KnownHands, known_hands
from support.model_parts import small_model, small_recipe

IN_IMAGE = ((0, 1), (), (2,), (3, 4))
"""The hands of each image, of which the first byte is its number."""


@pytest.fixture(scope="module")
def truth() -> KnownHands:
    return known_hands(5, seed=3)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    recipe = small_recipe(pose2d_tokens=21)
    model = small_model(recipe)
    return ModelBundle(model, recipe, {}, model.mano.digest, "")


@pytest.fixture
def images(truth, monkeypatch) -> list[np.ndarray]:
    """Images of noise, and a hand finder that knows the hands of each."""

    def seen(k: int) -> HandBox:
        meters_per_px = truth.joints_m[k, 0, 2] / truth.K_px[k, 0, 0]
        world = truth.joints_m[k] - truth.joints_m[k].mean(0)
        detection = Detections(
            truth.joints_px[k][None].astype(np.float32),
            np.full((1, 21), 0.9, np.float32),
            np.ones(1, np.float32),
            np.full(1, 0.9 if k % 2 else 0.1, np.float32),
            z_px=((world[:, 2] - world[0, 2]) / meters_per_px)[None].astype(np.float32),
            world_m=world[None].astype(np.float32),
        )
        return HandBox(tight_box(detection.keypoints_px[0]), "right" if k % 2 else "left", 0.9, detection)

    monkeypatch.setattr(detect, "find_hands", lambda image, assets: [seen(k) for k in IN_IMAGE[image[0, 0, 0]]])
    made = np.random.default_rng(0).integers(0, 256, (len(IN_IMAGE), 224, 224, 3), np.uint8)
    made[:, 0, 0, 0] = np.arange(len(IN_IMAGE))
    return list(made)


def assert_same(a: PlacedHand, b: PlacedHand) -> None:
    for field in fields(a):
        mine, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "hypotheses":
            assert len(mine) == len(other)
            for one, two in zip(mine, other, strict=True):
                assert_same(one, two)
        elif isinstance(mine, np.ndarray | float):
            np.testing.assert_allclose(mine, other, atol=1e-5, rtol=1e-5, err_msg=field.name)
        else:
            assert mine == other, field.name


@pytest.mark.parametrize(
    ("method", "hypotheses", "draws", "at_once"),
    [("fit", 0, False, 2), ("model", 5, False, 32), ("refine", 5, True, 2)],
)
def test_hands_of_many_images_are_those_of_each_alone(
    images, bundle, truth, monkeypatch, method, hypotheses, draws, at_once
) -> None:
    """Batches cut between and within images; samples, too, are those that the hand alone would draw."""
    monkeypatch.setattr(reconstruct, "HANDS_AT_ONCE", at_once)
    if draws:
        drawing = bundle.recipe.sampler.model_copy(update={"temperature": 1.0, "decode": "codes"})
        monkeypatch.setattr(ModelBundle, "estimator", drawing)
    network = None if method == "fit" else bundle
    cameras = [None, None, truth.K_px[2], truth.K_px[3] + np.diag([9.0, 0, 0])]
    options = {"method": method, "hypotheses": hypotheses}
    together = predict_images(images, network, cameras=cameras, **options)
    assert [len(hands) for hands in together] == [len(hands) for hands in IN_IMAGE]
    for k, (image, hands) in enumerate(zip(images, together, strict=True)):
        (alone,) = predict_images([image], network, cameras=[cameras[k]], **options)
        if cameras[k] is None:
            assert len(predict_hands(image, network, **options)) == len(alone)
        else:
            assert all(np.array_equal(hand.K_px, cameras[k]) for hand in hands)
        for mine, its in zip(hands, alone, strict=True):
            assert isinstance(mine, PredictedHand) and all(isinstance(h, Hypothesis) for h in mine.hypotheses)
            assert_same(mine, its)


@pytest.mark.parametrize(
    "camera", [np.eye(2), np.diag([-1.0, 1, 1]), np.full((3, 3), np.nan), [[5.0, 0, 2], [0, 5, 2], [0, 1, 1]]]
)
def test_what_is_no_camera_is_said(images, camera) -> None:
    with pytest.raises(PredictError, match=r"expected a \(3, 3\) matrix"):
        predict_images(images[:1], None, cameras=[camera])


def test_each_image_has_its_own_question(images) -> None:
    for name in ("boxes", "sides", "cameras"):
        with pytest.raises(PredictError, match=f"{name}: expected one for each of the 2 images"):
            predict_images(images[:2], None, **{name: [None]})
