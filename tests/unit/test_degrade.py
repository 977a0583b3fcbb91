"""What real photos have: each effect against its closed form, its draws, and what it must leave alone."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from maskhand.config import AugmentConfig
from maskhand.loading.augment import ImageAugmentation
from maskhand.loading.degrade import PhotoEffects, degrade, draw_photo_effects, exposure_tables, motion_kernel
from support.hand_sets import make_samples
from support.loading_parts import HARD_PHOTOS, batch_of, same

HARD = AugmentConfig(**HARD_PHOTOS)
NO_CHANCE = {key: 0.0 for key in HARD_PHOTOS if key.endswith("_probability")}
OFF = {"exposure": 0, "saturation": 0, "blur_px": 0, "shrink": 1, "noise": 0, "jpeg_quality": 100} | NO_CHANCE


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """(4, 96, 72, 4) smooth textures; the last one's first columns lie outside of the image."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 226, (4, 12, 9, 3)).astype(np.uint8)
    crops = np.full((4, 96, 72, 4), 255, np.uint8)
    crops[..., :3] = [cv2.resize(c, (72, 96), interpolation=cv2.INTER_LINEAR) for c in coarse]
    crops[3, :, :9] = 0
    return crops


def identity(batch: int) -> PhotoEffects:
    off = AugmentConfig(**OFF | {"effect_probability": 1.0, "noise": 1e-9})
    effects = draw_photo_effects(off, 0, np.arange(batch))
    assert effects is not None
    return dataclasses.replace(effects, noise=np.zeros(batch))


def degraded(crops: np.ndarray, **fields) -> np.ndarray:
    """The crops with the same effect on each; fields: of `PhotoEffects`, for one crop."""
    rows = {name: np.broadcast_to(value, (len(crops), *np.shape(value))) for name, value in fields.items()}
    after = crops.copy()
    degrade(after, dataclasses.replace(identity(len(crops)), **rows))
    return after


@pytest.mark.parametrize("changed", [{}, {"effect_probability": 1.0}, {"noise": 9.0, "jpeg_quality": 10}])
def test_where_nothing_is_on_nothing_is_drawn(changed: dict) -> None:
    assert draw_photo_effects(AugmentConfig(**OFF | changed), 0, np.arange(3)) is None
    assert draw_photo_effects(AugmentConfig(), 0, np.arange(3)) is None


def test_the_identity_changes_no_bit(crops: np.ndarray) -> None:
    np.testing.assert_array_equal(degraded(crops), crops)


def test_labels_do_not_know_of_it() -> None:
    samples, change = make_samples(4), ImageAugmentation.none(4)
    before, after = (
        batch_of(samples, change),
        batch_of(samples, change, effects=draw_photo_effects(HARD, 0, np.arange(4))),
    )
    assert not torch.equal(before.pixels, after.pixels)
    assert same(dataclasses.replace(after, pixels=before.pixels), before)


def test_a_crop_does_not_depend_on_its_batch(crops: np.ndarray) -> None:
    many = np.concatenate([crops] * 16)
    whole, few = many.copy(), np.array([61, 7, 20])
    part = many[few]
    degrade(whole, draw_photo_effects(HARD, 1, np.arange(100, 164)))
    degrade(part, draw_photo_effects(HARD, 1, few + 100))
    np.testing.assert_array_equal(part, whole[few])
    other = many.copy()
    degrade(other, draw_photo_effects(HARD, 2, np.arange(100, 164)))
    assert not np.array_equal(other, whole)


def test_alpha_is_coverage_and_what_is_not_covered_is_black(crops: np.ndarray) -> None:
    many = np.concatenate([crops] * 50)
    after = many.copy()
    effects = draw_photo_effects(HARD, 0, np.arange(200))
    degrade(after, effects)
    inside = np.isinf(effects.edge[:, 1])
    np.testing.assert_array_equal(after[inside][..., 3], many[inside][..., 3])
    assert not after[after[..., 3] == 0].any() and set(np.unique(after[..., 3])) == {0, 255}
    lost = (many[..., 3] > after[..., 3]).mean(axis=(1, 2))[~inside]
    assert 0 < lost.mean() < 0.3 and lost.max() < 0.5 and (after[..., 3] <= many[..., 3]).all()


def test_drawn_effects_follow_the_recipe() -> None:
    effects = draw_photo_effects(HARD, 3, np.arange(4000))
    assert effects is not None
    off = identity(1)
    for name in ("exposure", "saturation", "blur_px", "shrink", "noise", "jpeg_quality"):
        changed = (getattr(effects, name) != getattr(off, name)).reshape(4000, -1).any(axis=1)
        chance = 0.5 + 0.5 * HARD.grayscale_probability if name == "saturation" else 0.5
        assert changed.mean() == pytest.approx(chance, abs=0.03), name
    assert np.mean(effects.saturation == 0) == pytest.approx(HARD.grayscale_probability, abs=0.02)
    assert np.mean(effects.occluder[:, 2] > 0) == pytest.approx(HARD.occlude_probability, abs=0.03)
    assert np.mean(np.isfinite(effects.edge[:, 1])) == pytest.approx(HARD.edge_probability, abs=0.03)
    gamma, contrast, brightness = np.abs(effects.exposure - [0, 1, 0]).max(axis=0)
    assert np.log(gamma) == pytest.approx(0.5, abs=0.01) and contrast == pytest.approx(0.5, abs=0.01)
    assert brightness == pytest.approx(0.125, abs=0.005)
    for name, largest in (("blur_px", 3.0), ("shrink", 4.0), ("noise", 20.0)):
        assert getattr(effects, name).max() == pytest.approx(largest, rel=0.01)
    assert sorted(set(effects.jpeg_quality)) == [*range(20, 96), 100]
    area = effects.occluder[:, 2] * effects.occluder[:, 3]
    assert area[area > 0].min() >= 0.0199 and area.max() <= 0.2001


def test_one_effects_numbers_do_not_depend_on_the_others() -> None:
    everything = draw_photo_effects(HARD, 0, np.arange(50))
    alone = draw_photo_effects(AugmentConfig(noise=20.0), 0, np.arange(50))
    np.testing.assert_array_equal(alone.noise, everything.noise)
    assert (alone.shrink == 1).all() and (alone.saturation == 1).all()


# ------------------------------------------------------------------------------------------------- closed forms


def test_exposure_is_a_gamma_curve_with_contrast_about_gray_and_brightness(crops: np.ndarray) -> None:
    after = degraded(crops, exposure=[1.5, 0.8, 0.1])
    expected = np.clip(0.8 * ((crops[..., :3] / 255.0) ** 1.5 - 0.5) + 0.6, 0, 1) * 255
    covered = crops[..., 3] > 0
    assert np.abs(after[..., :3] - expected)[covered].max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(exposure_tables(np.array([[1.0, 1.0, 0.0]]))[0], np.arange(256))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.4])
def test_saturation_scales_the_distance_from_gray(crops: np.ndarray, factor: float) -> None:
    gray = crops[..., :3] @ [0.299, 0.587, 0.114]
    expected = np.clip(gray[..., None] + factor * (crops[..., :3] - gray[..., None]), 0, 255)
    assert np.abs(degraded(crops, saturation=factor)[..., :3] - expected).max() <= 1.01


@pytest.mark.parametrize("direction", [np.nan, 0.0, 0.7])
def test_blur_keeps_the_mean_and_spreads_by_its_standard_deviation(direction: float) -> None:
    dot = np.zeros((1, 61, 61, 4), np.uint8)
    dot[..., 3] = 255
    dot[0, 28:33, 28:33, :3] = 250
    after = degraded(dot, blur_px=3.0, motion_rad=direction)[0, ..., 0].astype(float)
    assert after.mean() == pytest.approx(dot[..., 0].mean(), rel=0.03)
    ys, xs = np.mgrid[-30:31, -30:31]
    spread = np.cov(np.stack([xs.ravel(), ys.ravel()]), aweights=after.ravel(), ddof=0) - 2 * np.eye(2)
    along = np.array([np.cos(direction), np.sin(direction)])
    # Bilinear interpolation of the line adds up to a quarter of a squared pixel.
    expected = 9 * np.eye(2) if np.isnan(direction) else 9 * np.outer(along, along)
    np.testing.assert_allclose(spread, expected, atol=0.5)
    assert motion_kernel(3.0, 0.7).sum() == pytest.approx(1.0, abs=1e-6)


def test_a_small_hand_is_the_crop_reduced_and_enlarged(crops: np.ndarray) -> None:
    after = degraded(crops, shrink=2.5)
    for before, one in zip(crops[:3, ..., :3], after[:3, ..., :3], strict=True):
        small = cv2.resize(before, (29, 38), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(one, cv2.resize(small, (72, 96), interpolation=cv2.INTER_LINEAR))


def test_noise_has_its_standard_deviation_and_no_mean() -> None:
    gray = np.full((16, 128, 128, 4), 128, np.uint8)
    offsets = np.random.default_rng(0).integers(0, 256, (16, 2))
    after = gray.copy()
    degrade(after, dataclasses.replace(identity(16), noise=np.full(16, 12.0), noise_offset=offsets))
    noise = after[..., :3].astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.2)
    np.testing.assert_allclose(noise.std(axis=(0, 1, 2)), 12, rtol=0.02)
    assert np.corrcoef(noise.reshape(-1, 3).T)[0, 1] == pytest.approx(0.64, abs=0.02), "mostly of luminance"
    assert not np.array_equal(after[0], after[1])


@pytest.mark.parametrize("quality", [20, 80])
def test_jpeg_is_opencvs_round_trip(crops: np.ndarray, quality: int) -> None:
    after = degraded(crops[:3], jpeg_quality=quality)
    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    for before, one in zip(crops, after, strict=False):
        encoded = cv2.imencode(".jpg", cv2.cvtColor(before, cv2.COLOR_RGBA2BGR), settings)[1]
        expected = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        # Coefficients halfway between two quanta are rounded by either encoder's arithmetic.
        lost = np.abs(before[..., :3] - expected.astype(float)).mean()
        assert np.abs(one[..., :3] - expected.astype(float)).mean() < 0.3 * lost
        assert np.abs(before[..., :3] - one[..., :3].astype(float)).mean() == pytest.approx(lost, rel=0.05)


@pytest.mark.parametrize("rounded", [False, True])
def test_an_occluder_has_its_place_and_shows_the_middle_of_the_picture(rounded: bool) -> None:
    crop = np.full((1, 96, 72, 4), 255, np.uint8)
    crop[0, :, :, :3] = 200
    crop[0, 40:56, 28:44, :3] = [40, 80, 120]
    after = degraded(
        crop,
        occluder=[0.22, 0.25, 0.2, 0.1, 0.0],
        occluder_round=rounded,
        occluder_source=0.3 * np.eye(2),
        occluder_gain=[2.0, 1.0, 0.5],
    )
    # Near the occluder blue is 200 behind it and 60 on it.
    weight = ((200.0 - after[0, ..., 2]) / 140)[:38, :27]
    ys, xs = np.mgrid[:38, :27]
    center = (weight * xs).sum() / weight.sum(), (weight * ys).sum() / weight.sum()
    assert center == pytest.approx((15.34, 23.5), abs=0.2)
    # OpenCV fills the pixels of an outline too: up to three quarters of a pixel all around.
    across, down = 0.2 * 96, 0.1 * 96
    share = np.pi / 4 if rounded else 1
    assert across * down * share <= weight.sum() <= (across + 1.5) * (down + 1.5) * share
    assert after[0, 24, 15, :3].tolist() == [80, 80, 60]


def test_beyond_the_photos_edge_a_crop_is_black(crops: np.ndarray) -> None:
    after = degraded(crops[:1], edge=[np.pi / 2, 0.25])
    assert not after[:, 72:].any()
    np.testing.assert_array_equal(after[:, :72], crops[:1, :72])
