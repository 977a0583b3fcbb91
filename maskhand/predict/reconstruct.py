"""Reconstruction of detected hands by fit, network or both, and their placement in camera space; many hands at once.

Hands of several images share the network's passes and the fits. What a hand becomes depends on its own image alone:
samples are drawn with a generator of each hand, and rounding, which a batch's size may change, moves vertices by less
than 1e-6 m.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.config import DataConfig, SamplerConfig
from maskhand.conventions import MIRROR_AXIS_ANGLE
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import JointConfidence, joint_calibration
from maskhand.models.confidence import joint_confidence
from maskhand.models.fill_in import fill_in_sampler, fill_in_steps
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.placement import CameraSource, in_image_axes, place_hands
from maskhand.predict.camera import PhotoCamera
from maskhand.predict.detect import HAND_FINDER, DetectedHands
from maskhand.predict.fit import check_hand_model, fit_calibration, fit_hands, hand_model_of
from maskhand.predict.modes import Mode, find_modes
from maskhand.predict.records import (
    CameraOrigin,
    FilledHand,
    Hypothesis,
    Method,
    PlacedHand,
    PredictedHand,
    PredictError,
)
from maskhand.recipe_files import load_recipe

HANDS_AT_ONCE = 32
"""Hands that share a pass of the network, at most. Of an image no more than the crops waits for the others."""


@dataclass(frozen=True)
class SeenImage:
    """An image and the hands that were detected in it."""

    image_rgb: Array
    """(H, W, 3) uint8."""
    detected: DetectedHands
    camera: PhotoCamera
    """Known or assumed."""


@dataclass(frozen=True)
class Reconstruction:
    """How hands are reconstructed, and by what."""

    bundle: ModelBundle | None
    """None for a fit, which needs no network."""
    method: Method
    placed_by: CameraSource = "keypoints"
    """`model`: by the network's crop camera; `keypoints`: by the 2D keypoints, where enough are detected."""
    hypotheses: int = 0
    """Number of hands sampled for each one, from the same encoding (`hypothesis_sampler`)."""
    fill_in: int = 0
    """Iterations T of decoding that are kept to look at (`models.fill_in`); 0: none."""

    def __post_init__(self) -> None:
        bundle = self.bundle
        if bundle is None:
            self._check_without_network()
            return
        bundle.require("image")
        if self.method != "model":
            check_hand_model(bundle.hand_digest)
        if (self.hypotheses or self.fill_in) and not isinstance(bundle.model, MaskedTransformer):
            raise PredictError(
                f"model {bundle.digest} (recipe {bundle.recipe.name}) predicts one hand per image; it has no "
                "distribution to sample hypotheses from, and no tokens to fill in"
            )

    def _check_without_network(self) -> None:
        wanted = {
            f"method {self.method}": self.method != "fit",
            "camera model": self.placed_by == "model",
            "hypotheses": self.hypotheses > 0,
            "tokens filled in": self.fill_in > 0,
        }
        for what, needs_network in wanted.items():
            if needs_network:
                raise PredictError(
                    f"{what}: a network is needed; `--model open` is the one that ships, `maskhand quickstart` trains "
                    "another"
                )

    @functools.cached_property
    def data(self) -> DataConfig:
        """How crops are cut."""
        return load_recipe("tiny").data if self.bundle is None else self.bundle.recipe.data

    @property
    def detector(self) -> str:
        """Name of the keypoint detector."""
        return HAND_FINDER if self.bundle is None else self.data.keypoints.detector


@dataclass(frozen=True)
class _Group:
    """The N hands of some images, reconstructed together."""

    detected: DetectedHands
    batch: HandBatch
    K_px: Array
    """(N, 3, 3)."""
    camera_origins: tuple[CameraOrigin, ...]

    def __getitem__(self, rows: slice) -> _Group:
        return _Group(self.detected[rows], self.batch[rows], self.K_px[rows], self.camera_origins[rows])

    @staticmethod
    def of(image: SeenImage, data: DataConfig) -> _Group:
        detected, seen = image.detected, image.detected.detections
        batch = photo_batch(
            image.image_rgb,
            detected.boxes_xyxy_px,
            detected.sides,
            data,
            keypoints_px=seen.keypoints_px,
            confidence=seen.confidence,
            z_px=seen.z_px,
            world_m=seen.world_m,
        )
        hands = len(detected)
        return _Group(detected, batch, np.tile(image.camera.K_px, (hands, 1, 1)), (image.camera.origin,) * hands)

    @staticmethod
    def join(groups: list[_Group]) -> _Group:
        return _Group(
            DetectedHands.join([group.detected for group in groups]),
            HandBatch.join([group.batch for group in groups]),
            np.concatenate([group.K_px for group in groups]),
            tuple(origin for group in groups for origin in group.camera_origins),
        )


def reconstruct_hands(images: Iterable[SeenImage], how: Reconstruction) -> Iterator[list[PredictedHand]]:
    """The hands of each image, in the order in which they were detected; an empty list for an image without hands.

    Images are taken as they are needed, until their hands fill a batch of `HANDS_AT_ONCE`. Raises PredictError when
    the network predicts values that are not finite.
    """
    waiting: list[int] = []
    groups: list[_Group] = []
    for image in images:
        waiting.append(len(image.detected))
        if waiting[-1]:
            groups.append(_Group.of(image, how.data))
        if sum(waiting) >= HANDS_AT_ONCE:
            yield from _shared_out(waiting, groups, how)
            waiting, groups = [], []
    yield from _shared_out(waiting, groups, how)


def distinct_sequences(ids: Array) -> tuple[Array, Array]:
    """(H, L) token sequences -> index of the first occurrence of each distinct one, in order, and its count."""
    _, first, counts = np.unique(ids, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def _shared_out(counts: list[int], groups: list[_Group], how: Reconstruction) -> Iterator[list[PredictedHand]]:
    """The hands of the groups, reconstructed together, by image."""
    hands: list[PredictedHand] = []
    if groups:
        joined = _Group.join(groups)
        for first in range(0, len(joined.detected), HANDS_AT_ONCE):
            hands += _hands(joined[first : first + HANDS_AT_ONCE], how)
    remaining = iter(hands)
    for count in counts:
        yield [next(remaining) for _ in range(count)]


def _hands(group: _Group, how: Reconstruction) -> list[PredictedHand]:
    placed, confidence, hypotheses, filled = _placed_hands(group, how)
    hand_model, faces = hand_model_of(how.bundle)
    detected = group.detected
    return [
        PredictedHand(
            side=detected.sides[k],
            side_known=detected.side_known[k],
            box_xyxy_px=detected.boxes_xyxy_px[k],
            detection_score=detected.scores[k],
            keypoints_px=detected.detections.keypoints_px[k],
            keypoints_confidence=detected.detections.confidence[k],
            faces=faces[:, ::-1] if detected.sides[k] == "left" else faces,
            K_px=group.K_px[k],
            camera_origin=group.camera_origins[k],
            crop_from_image=group.batch.crop_from_image[k].numpy(),
            p_within_10mm=confidence.p_within_10mm[k],
            joint_error_mm=confidence.joint_error_mm[k],
            detector=how.detector,
            method=how.method,
            hand_model=hand_model,
            hypotheses=hypotheses[k],
            modes=_modes(hypotheses[k]),
            fill_in=filled[k],
            **vars(placed[k]),
        )
        for k in range(len(detected))
    ]


@torch.no_grad()
def _placed_hands(
    group: _Group, how: Reconstruction
) -> tuple[list[PlacedHand], JointConfidence, list[tuple[Hypothesis, ...]], list[tuple[FilledHand, ...]]]:
    """The placed hands, the confidence of their joints, for each the distinct ones of its samples, and its decoding."""
    none: list[tuple[Hypothesis, ...]] = [()] * len(group.detected)
    not_kept: list[tuple[FilledHand, ...]] = [()] * len(group.detected)
    bundle, batch = how.bundle, group.batch
    fitted = fit_hands(group.detected, batch, group.K_px) if how.method == "fit" else None
    if fitted is not None and (bundle is None or (how.placed_by == "keypoints" and not how.hypotheses + how.fill_in)):
        return _place(fitted.prediction, group, how), fit_calibration()(fitted.features), none, not_kept
    assert bundle is not None
    model, seed = bundle.model, bundle.recipe.seed
    device = next(model.parameters()).device
    generators = [torch.Generator(device).manual_seed(seed) for _ in none]
    on_device = batch.to(device)
    context = model.encode(model.condition(on_device), on_device.keypoints_2d)
    network = in_image_axes(_estimate(bundle, context, generators), batch)
    if how.method == "model":
        hand, confidence = network, _sampled_confidence(bundle, context, network)
    else:
        fitted = fitted or fit_hands(group.detected, batch, group.K_px, network)
        hand, confidence = fitted.prediction, fit_calibration()(fitted.features)
    hand = replace(hand, camera=network.camera) if how.placed_by == "model" else hand
    hypotheses = none
    if how.hypotheses:
        hypotheses = [
            _sampled(context.of_hand(k), group[k : k + 1], generator, how) for k, generator in enumerate(generators)
        ]
    filled = _filled_in(context, group, how) if how.fill_in else not_kept
    return _place(hand, group, how), confidence, hypotheses, filled


def _estimate(bundle: ModelBundle, context: Context, generators: list[torch.Generator]) -> HandPrediction:
    """The network's hands by its estimator; one that draws does so for each hand with its own generator."""
    sampler = bundle.estimator
    if sampler.temperature == 0 and sampler.confidence_noise == 0:
        return _finite_sample(bundle, context, sampler)
    one_by_one = [
        _finite_sample(bundle, context.of_hand(k), sampler, generator) for k, generator in enumerate(generators)
    ]
    return HandPrediction.join(one_by_one)


def _sampled(
    context: Context, group: _Group, generator: torch.Generator, how: Reconstruction
) -> tuple[Hypothesis, ...]:
    """The distinct hypotheses of the one hand of a group."""
    bundle = how.bundle
    assert bundle is not None
    sampler = hypothesis_sampler(bundle.recipe.sampler)
    drawn = _finite_sample(bundle, context, sampler, generator, how.hypotheses)
    first, counts = distinct_sequences(drawn.tokens.ids.numpy())
    rows = torch.from_numpy(first)
    of_hand = torch.zeros_like(rows)
    repeated = replace(group, batch=group.batch[of_hand], K_px=group.K_px[of_hand.numpy()])
    hands = _place(in_image_axes(drawn[rows], repeated.batch), repeated, how)
    return tuple(
        Hypothesis(**vars(hand), drawn=int(count), score=score)
        for hand, count, score in zip(hands, counts, drawn.score[rows].tolist(), strict=True)
    )


def _filled_in(context: Context, group: _Group, how: Reconstruction) -> list[tuple[FilledHand, ...]]:
    """For each hand of a group its states while tokens are filled in."""
    assert how.bundle is not None and isinstance(how.bundle.model, MaskedTransformer)
    sampler = fill_in_sampler(how.bundle.recipe.sampler, how.fill_in)
    steps = [
        zip(_place(in_image_axes(step.hands.to("cpu"), group.batch), group, how), step.fixed.cpu().numpy(), strict=True)
        for step in fill_in_steps(how.bundle.model, context, sampler)
    ]
    return [
        tuple(FilledHand(**vars(hand), fixed=fixed) for hand, fixed in states) for states in zip(*steps, strict=True)
    ]


def _modes(hypotheses: tuple[Hypothesis, ...]) -> tuple[Mode, ...]:
    if not hypotheses:
        return ()
    return find_modes(np.stack([h.joints_cam_m for h in hypotheses]), [h.drawn for h in hypotheses])


def _finite_sample(
    bundle: ModelBundle,
    context: Context,
    sampler: SamplerConfig,
    generator: torch.Generator | None = None,
    hypotheses: int = 1,
) -> HandPrediction:
    """As `sample`, on the CPU."""
    prediction = sample(bundle.model, context, sampler, generator, hypotheses).to("cpu")
    if not bool(prediction.vertices_m.isfinite().all() and prediction.camera.isfinite().all()):
        raise PredictError(f"model {bundle.digest} predicts values that are not finite; train it again")
    return prediction


def _sampled_confidence(bundle: ModelBundle, context: Context, hands: HandPrediction) -> JointConfidence:
    """The confidence of a network's hands; NaN for a bundle that is not calibrated."""
    calibration = joint_calibration(bundle.recipe.sampler, bundle.calibration)
    if calibration is None or bundle.calibration is None:
        unknown = np.full(hands.joints_m.shape[:2], np.nan)
        return JointConfidence(unknown, unknown, unknown)
    draws, seed = bundle.calibration.draws, bundle.calibration.seed
    return joint_confidence(bundle.model, context, hands.joints_m, calibration, draws, seed)


def _place(prediction: HandPrediction, group: _Group, how: Reconstruction) -> list[PlacedHand]:
    """Mirror left hands back and place all hands in camera space."""
    left = group.batch.is_left.numpy()
    placed = place_hands(prediction, group.batch, group.K_px, how.data.crop_px, how.placed_by)
    vertices, joints = placed.to_camera(prediction.vertices_m), placed.to_camera(prediction.joints_m)
    joints_px = placed.pixels(joints)
    pose_aa = matrix_to_axis_angle(prediction.rotmats.double()).numpy()
    pose_aa = pose_aa * np.where(left[:, None, None], MIRROR_AXIS_ANGLE, 1.0)
    return [
        PlacedHand(
            pose_aa=pose_aa[k],
            betas=prediction.betas[k].numpy(),
            transl_cam_m=placed.translation_m[k],
            vertices_cam_m=vertices[k],
            joints_cam_m=joints[k],
            joints_px=joints_px[k],
            crop_camera=prediction.camera[k].numpy(),
            joint_confidence=prediction.joint_confidence[k].numpy(),
            tokens=prediction.tokens.ids[k].numpy(),
            token_confidence=prediction.tokens.confidence[k].numpy(),
            log_probability=float(prediction.log_probability[k]),
        )
        for k in range(len(left))
    ]
