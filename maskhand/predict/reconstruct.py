"""Reconstruction of detected hands by fit, network or both, and their placement in camera space, in batches.

Hands of several images share forward passes and fits. A hand's result depends only on its own image: each hand has
its own random generator, and rounding, which may depend on the batch size, moves vertices by less than 1e-6 m.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from maskhand.models.calibration import JointConfidence
from maskhand.models.confidence import calibrated_confidence
from maskhand.placement import in_image_axes
from maskhand.predict.fit import fit_calibration, fit_hands, hand_model_of
from maskhand.predict.hand_group import HandGroup, Reconstruction, SeenImage
from maskhand.predict.modes import Mode, find_modes
from maskhand.predict.network_hands import estimate, filled_in, sampled
from maskhand.predict.records import FilledHand, Hypothesis, PlacedHand, PredictedHand

HANDS_AT_ONCE = 32
"""Maximum number of hands per forward pass. Waiting for a full batch keeps only an image's crops in memory."""


def reconstruct_hands(images: Iterable[SeenImage], reconstruction: Reconstruction) -> Iterator[list[PredictedHand]]:
    """The hands of each image, in the order of detection; an empty list for an image without hands.

    Images are consumed lazily, until their hands fill a batch of `HANDS_AT_ONCE`. Raises PredictError when the network
    predicts values that are not finite.
    """
    waiting: list[int] = []
    groups: list[HandGroup] = []
    for image in images:
        waiting.append(len(image.detected))
        if waiting[-1]:
            groups.append(HandGroup.of(image, reconstruction.data))
        if sum(waiting) >= HANDS_AT_ONCE:
            yield from _shared_out(waiting, groups, reconstruction)
            waiting, groups = [], []
    yield from _shared_out(waiting, groups, reconstruction)


def _shared_out(
    counts: list[int], groups: list[HandGroup], reconstruction: Reconstruction
) -> Iterator[list[PredictedHand]]:
    """Reconstruct the groups together and return the hands by image."""
    hands: list[PredictedHand] = []
    if groups:
        joined = HandGroup.join(groups)
        for first in range(0, len(joined.detected), HANDS_AT_ONCE):
            hands += _hands(joined[first : first + HANDS_AT_ONCE], reconstruction)
    remaining = iter(hands)
    for count in counts:
        yield [next(remaining) for _ in range(count)]


def _hands(group: HandGroup, reconstruction: Reconstruction) -> list[PredictedHand]:
    placed, confidence, hypotheses, filled = _placed_hands(group, reconstruction)
    hand_model, faces = hand_model_of(reconstruction.bundle)
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
            detector=reconstruction.detector,
            method=reconstruction.method,
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
    group: HandGroup, reconstruction: Reconstruction
) -> tuple[list[PlacedHand], JointConfidence, list[tuple[Hypothesis, ...]], list[tuple[FilledHand, ...]]]:
    """The placed hands, the confidence of their joints, and each hand's distinct hypotheses and decoding states."""
    none: list[tuple[Hypothesis, ...]] = [()] * len(group.detected)
    not_kept: list[tuple[FilledHand, ...]] = [()] * len(group.detected)
    bundle, batch = reconstruction.bundle, group.batch
    fitted = fit_hands(group.detected, batch, group.K_px) if reconstruction.method == "fit" else None
    from_keypoints = reconstruction.placed_by == "keypoints" and not reconstruction.hypotheses + reconstruction.fill_in
    if fitted is not None and (bundle is None or from_keypoints):
        return group.placed(fitted.prediction, reconstruction), fit_calibration()(fitted.features), none, not_kept
    assert bundle is not None
    model, seed = bundle.model, bundle.recipe.seed
    device = next(model.parameters()).device
    generators = [torch.Generator(device).manual_seed(seed) for _ in none]
    on_device = batch.to(device)
    context = model.encode(model.condition(on_device), on_device.keypoints_2d)
    network = in_image_axes(estimate(bundle, context, generators), batch)
    if reconstruction.method == "model":
        hand = network
        confidence = calibrated_confidence(model, context, hand.joints_m, bundle.recipe.sampler, bundle.calibration)
    else:
        fitted = fitted or fit_hands(group.detected, batch, group.K_px, network)
        hand, confidence = fitted.prediction, fit_calibration()(fitted.features)
    hand = replace(hand, camera=network.camera) if reconstruction.placed_by == "model" else hand
    hypotheses = none
    if reconstruction.hypotheses:
        hypotheses = [
            sampled(context.of_hand(k), group[k : k + 1], generator, reconstruction)
            for k, generator in enumerate(generators)
        ]
    filled = filled_in(context, group, reconstruction) if reconstruction.fill_in else not_kept
    return group.placed(hand, reconstruction), confidence, hypotheses, filled


def _modes(hypotheses: tuple[Hypothesis, ...]) -> tuple[Mode, ...]:
    if not hypotheses:
        return ()
    return find_modes(np.stack([h.joints_cam_m for h in hypotheses]), [h.drawn for h in hypotheses])
