"""An image in, hands out: find them, detect keypoints, reconstruct by fit, network or both, place before the camera.

Left hands are reconstructed mirrored and come out as left hands: mesh, joints, MANO parameters (of a left model that is
the mirror of the right one) and camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MIRROR_AXIS_ANGLE, Side
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import JointConfidence, calibrated
from maskhand.models.confidence import joint_confidence
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.placement import CameraSource, place_hands
from maskhand.predict.detect import FINDS_HANDS, SeenHands, see_hands
from maskhand.predict.fit import check_hand_model, fit_calibration, fit_hands, hand_model_of
from maskhand.predict.photo import Box, camera_matrix
from maskhand.predict.records import Array, Hypothesis, Method, PlacedHand, PredictedHand, PredictError
from maskhand.recipe_files import load_recipe
from maskhand.workspace import Workspace

DEFAULT_METHOD: Method = "fit"
"""What measures best on real hands, see docs/evaluation.md."""


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
    """The hands of an image (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    method: `fit` finds the most probable hand for the detected keypoints and needs no network (`bundle` may be None);
    `model` is the network's hand; `refine` is a fit for which the network's hand is evidence too. camera: `model`
    places the hands where the network says, `keypoints` where the 2D keypoints say (the network's own place and size
    when too few are seen). hypotheses: so many hands are drawn beside each one, from the same encoding
    (`hypothesis_sampler`). min_confidence: hands with a smaller mean confidence of keypoints are left out. Raises
    PredictError, BundleError when the model reads captions.
    """
    _check(bundle, method, camera, hypotheses)
    folder = Workspace.at().assets if assets is None else Path(assets)
    K_px = camera_matrix(image_rgb, focal_px)
    data = load_recipe("tiny").data if bundle is None else bundle.recipe.data
    detector = FINDS_HANDS if bundle is None else data.keypoints.detector
    seen = see_hands(image_rgb, boxes_xyxy_px, side, detector, folder, min_confidence)
    if not len(seen):
        return []
    batch = photo_batch(
        image_rgb,
        seen.boxes_xyxy_px,
        seen.sides,
        data,
        keypoints_px=seen.detections.keypoints_px,
        confidence=seen.detections.confidence,
        K_px=None if focal_px is None else K_px,
    )
    first, confidence, drawn = _placed_hands(bundle, method, seen, batch, data.crop_px, K_px, camera, hypotheses)
    hand_model, faces = hand_model_of(bundle)
    return [
        PredictedHand(
            side=seen.sides[k],
            side_known=seen.side_known[k],
            box_xyxy_px=seen.boxes_xyxy_px[k],
            detection_score=seen.scores[k],
            keypoints_px=seen.detections.keypoints_px[k],
            keypoints_confidence=seen.detections.confidence[k],
            faces=faces[:, ::-1] if seen.sides[k] == "left" else faces,
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
        for k in range(len(seen))
    ]


def distinct_strings(ids: Array) -> tuple[Array, Array]:
    """(H, L) token sequences -> where each different one stands first, in that order, and how often it is there."""
    _, first, counts = np.unique(ids, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def _check(bundle: ModelBundle | None, method: Method, camera: CameraSource, hypotheses: int) -> None:
    if bundle is None:
        wanted = {f"method {method}": method != "fit", "camera model": camera == "model", "hypotheses": hypotheses > 0}
        for what, needs_network in wanted.items():
            if needs_network:
                raise PredictError(f"{what}: a trained network is needed; `maskhand quickstart` trains one")
        return
    bundle.require("image")
    if method != "model":
        check_hand_model(bundle.hand_digest)
    if hypotheses and not isinstance(bundle.model, MaskedTransformer):
        raise PredictError(
            f"model {bundle.digest} (recipe {bundle.recipe.name}) knows one hand per image; it has no "
            "distribution to draw hypotheses from"
        )


@torch.no_grad()
def _placed_hands(
    bundle: ModelBundle | None,
    method: Method,
    seen: SeenHands,
    batch: HandBatch,
    crop_px: int,
    K_px: Array,
    camera: CameraSource,
    hypotheses: int,
) -> tuple[list[PlacedHand], JointConfidence, list[tuple[Hypothesis, ...]]]:
    """The reconstructed hands, what is said of their joints, and the different ones among `hypotheses` draws of the
    network for each."""
    none: list[tuple[Hypothesis, ...]] = [()] * len(seen)
    fitted = fit_hands(seen, batch, K_px) if method == "fit" else None
    if fitted is not None:
        confidence = fit_calibration()(fitted.features)
        if bundle is None or (camera == "keypoints" and not hypotheses):
            return _place(fitted.prediction, batch, crop_px, K_px, camera), confidence, none
    assert bundle is not None
    model, recipe = bundle.model, bundle.recipe
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(recipe.seed)
    there = batch.to(device)
    context = model.encode(model.condition(there), there.keypoints_2d)
    network = _finite(sample(model, context, bundle.estimator, generator).to("cpu"), bundle)
    hand = network
    if method != "model":
        hand = (fitted or fit_hands(seen, batch, K_px, network)).prediction
    if fitted is None:
        confidence = _drawn_confidence(bundle, context, method, hand.joints_m)
    hand = replace(hand, camera=network.camera) if camera == "model" else hand
    first = _place(hand, batch, crop_px, K_px, camera)
    if not hypotheses:
        return first, confidence, none
    drawn = _finite(sample(model, context, hypothesis_sampler(recipe.sampler), generator, hypotheses).to("cpu"), bundle)
    kept = [distinct_strings(ids.numpy()) for ids in drawn.tokens.ids.split(hypotheses)]
    rows = torch.cat([torch.from_numpy(places) + hypotheses * k for k, (places, _) in enumerate(kept)])
    image = torch.div(rows, hypotheses, rounding_mode="floor")
    hands, scores = iter(_place(drawn[rows], batch[image], crop_px, K_px, camera)), iter(drawn.score[rows].tolist())
    return (
        first,
        confidence,
        [
            tuple(Hypothesis(**vars(next(hands)), drawn=int(n), score=next(scores)) for n in counts)
            for _, counts in kept
        ],
    )


def _drawn_confidence(bundle: ModelBundle, context: Context, method: Method, joints_m: Tensor) -> JointConfidence:
    """Of a network's hands, or of those refined by them; NaN where the bundle has no calibration of the method."""
    calibration = calibrated(bundle.recipe.sampler, bundle.calibration).get(method)
    if calibration is None or bundle.calibration is None:
        nothing = np.full(joints_m.shape[:2], np.nan)
        return JointConfidence(nothing, nothing, nothing)
    draws, seed = bundle.calibration.draws, bundle.calibration.seed
    return joint_confidence(bundle.model, context, joints_m, calibration, draws, seed)


def _finite(prediction: HandPrediction, bundle: ModelBundle) -> HandPrediction:
    if not bool(prediction.vertices_m.isfinite().all() and prediction.camera.isfinite().all()):
        raise PredictError(f"model {bundle.digest} predicts numbers that are not finite; train or export it again")
    return prediction


def _place(
    prediction: HandPrediction, batch: HandBatch, crop_px: int, K_px: Array, camera: CameraSource
) -> list[PlacedHand]:
    """Mirror left hands back and put all hands before the photo's camera."""
    left = batch.is_left.numpy()
    placed = place_hands(prediction, batch, np.tile(K_px, (len(left), 1, 1)), crop_px, camera)
    vertices, joints = placed.before_camera(prediction.vertices_m), placed.before_camera(prediction.joints_m)
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
