"""Prediction of the hands of an image: detection, reconstruction by fit, network or both, placement in camera space.

Left hands are reconstructed mirrored and returned as left hands: mesh, joints, MANO parameters (of a left model that is
the mirror of the right one) and camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MIRROR_AXIS_ANGLE, Side
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import JointConfidence, joint_calibration
from maskhand.models.confidence import joint_confidence
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.placement import CameraSource, in_image_axes, place_hands
from maskhand.predict.detect import HAND_FINDER, DetectedHands, detect_hands
from maskhand.predict.fit import check_hand_model, fit_calibration, fit_hands, hand_model_of
from maskhand.predict.photo import Box, camera_matrix
from maskhand.predict.records import Hypothesis, Method, PlacedHand, PredictedHand, PredictError
from maskhand.recipe_files import load_recipe
from maskhand.workspace import Workspace

DEFAULT_METHOD: Method = "fit"
"""The most accurate method that needs no network, see docs/evaluation.md."""


def predict_hands(
    image_rgb: Array,
    bundle: ModelBundle | None,
    boxes_xyxy_px: Sequence[Box] | Array | None = None,
    side: Side | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    focal_px: float | None = None,
    camera: CameraSource = "keypoints",
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    assets: str | Path | None = None,
) -> list[PredictedHand]:
    """Predict the hands of an image (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    method: `fit` finds the most probable hand for the detected keypoints and needs no network (`bundle` may be None);
    `model` is the network's hand; `refine` is a fit for which the network's hand is evidence too. camera: `model`
    places the hands by the network's camera, `keypoints` by the 2D keypoints (by the network's camera when too few are
    detected). hypotheses: number of hands sampled for each one, from the same encoding (`hypothesis_sampler`).
    min_confidence: hands with a smaller mean confidence of keypoints are left out. Raises PredictError, BundleError
    when the model reads captions.
    """
    _check(bundle, method, camera, hypotheses)
    folder = Workspace.at().assets if assets is None else Path(assets)
    K_px = camera_matrix(image_rgb, focal_px)
    data = load_recipe("tiny").data if bundle is None else bundle.recipe.data
    detector = HAND_FINDER if bundle is None else data.keypoints.detector
    detected = detect_hands(image_rgb, boxes_xyxy_px, side, detector, folder, min_confidence)
    if not len(detected):
        return []
    batch = photo_batch(
        image_rgb,
        detected.boxes_xyxy_px,
        detected.sides,
        data,
        keypoints_px=detected.detections.keypoints_px,
        confidence=detected.detections.confidence,
        z_px=detected.detections.z_px,
        world_m=detected.detections.world_m,
        K_px=None if focal_px is None else K_px,
    )
    first, confidence, drawn = _placed_hands(bundle, method, detected, batch, data.crop_px, K_px, camera, hypotheses)
    hand_model, faces = hand_model_of(bundle)
    return [
        PredictedHand(
            side=detected.sides[k],
            side_known=detected.side_known[k],
            box_xyxy_px=detected.boxes_xyxy_px[k],
            detection_score=detected.scores[k],
            keypoints_px=detected.detections.keypoints_px[k],
            keypoints_confidence=detected.detections.confidence[k],
            faces=faces[:, ::-1] if detected.sides[k] == "left" else faces,
            K_px=K_px,
            crop_from_image=batch.crop_from_image[k].numpy(),
            p_within_10mm=confidence.p_within_10mm[k],
            joint_error_mm=confidence.joint_error_mm[k],
            detector=detector,
            method=method,
            hand_model=hand_model,
            hypotheses=drawn[k],
            **vars(first[k]),
        )
        for k in range(len(detected))
    ]


def distinct_sequences(ids: Array) -> tuple[Array, Array]:
    """(H, L) token sequences -> index of the first occurrence of each distinct one, in order, and its count."""
    _, first, counts = np.unique(ids, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def _check(bundle: ModelBundle | None, method: Method, camera: CameraSource, hypotheses: int) -> None:
    if bundle is None:
        wanted = {f"method {method}": method != "fit", "camera model": camera == "model", "hypotheses": hypotheses > 0}
        for what, needs_network in wanted.items():
            if needs_network:
                raise PredictError(
                    f"{what}: a network is needed; `--model open` is the one that ships, `maskhand quickstart` trains "
                    "another"
                )
        return
    bundle.require("image")
    if method != "model":
        check_hand_model(bundle.hand_digest)
    if hypotheses and not isinstance(bundle.model, MaskedTransformer):
        raise PredictError(
            f"model {bundle.digest} (recipe {bundle.recipe.name}) predicts one hand per image; it has no "
            "distribution to sample hypotheses from"
        )


@torch.no_grad()
def _placed_hands(
    bundle: ModelBundle | None,
    method: Method,
    detected: DetectedHands,
    batch: HandBatch,
    crop_px: int,
    K_px: Array,
    camera: CameraSource,
    hypotheses: int,
) -> tuple[list[PlacedHand], JointConfidence, list[tuple[Hypothesis, ...]]]:
    """The placed hands, the confidence of their joints, and for each the distinct ones of `hypotheses` samples."""
    none: list[tuple[Hypothesis, ...]] = [()] * len(detected)
    fitted = fit_hands(detected, batch, K_px) if method == "fit" else None
    if fitted is not None and (bundle is None or (camera == "keypoints" and not hypotheses)):
        return _place(fitted.prediction, batch, crop_px, K_px, camera), fit_calibration()(fitted.features), none
    assert bundle is not None
    model, recipe = bundle.model, bundle.recipe
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(recipe.seed)
    on_device = batch.to(device)
    context = model.encode(model.condition(on_device), on_device.keypoints_2d)
    network = in_image_axes(_finite(sample(model, context, bundle.estimator, generator).to("cpu"), bundle), batch)
    if method == "model":
        hand, confidence = network, _sampled_confidence(bundle, context, network.joints_m)
    else:
        fitted = fitted or fit_hands(detected, batch, K_px, network)
        hand, confidence = fitted.prediction, fit_calibration()(fitted.features)
    hand = replace(hand, camera=network.camera) if camera == "model" else hand
    first = _place(hand, batch, crop_px, K_px, camera)
    if not hypotheses:
        return first, confidence, none
    drawn = _finite(sample(model, context, hypothesis_sampler(recipe.sampler), generator, hypotheses).to("cpu"), bundle)
    distinct = [distinct_sequences(ids.numpy()) for ids in drawn.tokens.ids.split(hypotheses)]
    rows = torch.cat([torch.from_numpy(index) + hypotheses * k for k, (index, _) in enumerate(distinct)])
    image = torch.div(rows, hypotheses, rounding_mode="floor")
    distinct_hands = in_image_axes(drawn[rows], batch[image])
    hands, scores = iter(_place(distinct_hands, batch[image], crop_px, K_px, camera)), iter(drawn.score[rows].tolist())
    return (
        first,
        confidence,
        [
            tuple(Hypothesis(**vars(next(hands)), drawn=int(n), score=next(scores)) for n in counts)
            for _, counts in distinct
        ],
    )


def _sampled_confidence(bundle: ModelBundle, context: Context, joints_m: Tensor) -> JointConfidence:
    """The confidence of a network's hands; NaN for a bundle that is not calibrated."""
    calibration = joint_calibration(bundle.recipe.sampler, bundle.calibration)
    if calibration is None or bundle.calibration is None:
        unknown = np.full(joints_m.shape[:2], np.nan)
        return JointConfidence(unknown, unknown, unknown)
    draws, seed = bundle.calibration.draws, bundle.calibration.seed
    return joint_confidence(bundle.model, context, joints_m, calibration, draws, seed)


def _finite(prediction: HandPrediction, bundle: ModelBundle) -> HandPrediction:
    if not bool(prediction.vertices_m.isfinite().all() and prediction.camera.isfinite().all()):
        raise PredictError(f"model {bundle.digest} predicts values that are not finite; train it again")
    return prediction


def _place(
    prediction: HandPrediction, batch: HandBatch, crop_px: int, K_px: Array, camera: CameraSource
) -> list[PlacedHand]:
    """Mirror left hands back and place all hands in camera space."""
    left = batch.is_left.numpy()
    placed = place_hands(prediction, batch, np.tile(K_px, (len(left), 1, 1)), crop_px, camera)
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
