"""Hands fitted to detected keypoints, and optionally to the prediction of a network.

`annotate.fit` fits arrays of hands; this module passes it detected hands and returns a `HandPrediction`, as
networks do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from maskhand.annotate.fit.detected import fit_features, observe, with_relative
from maskhand.annotate.fit.fitter import ManoFitter
from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction, PoseTokens
from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.camera import MIN_SEEN, crop_camera_on_points, project_crop
from maskhand.hand.layer import HandMesh, ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.bundle import ModelBundle
from maskhand.models.calibration import JointCalibration
from maskhand.models.shape_camera_head import MEAN_SCALE, place_camera
from maskhand.placement import in_crop_axes
from maskhand.predict.detect import DetectedHands
from maskhand.predict.records import PredictError

NETWORK_NOISE_M = 0.014
"""Standard deviation assumed for the network's joint coordinates in `refine`; tuned for the open model on 60 hands."""


@dataclass(frozen=True)
class FittedHands:
    """N fitted right hands."""

    prediction: HandPrediction
    """The hands in the axes of the image; no tokens or token probabilities."""
    features: Array
    """(N, 21, 2) inputs of the calibration, see `fit_features`."""


def fit_hands(
    detected: DetectedHands, batch: HandBatch, K_px: Array, network: HandPrediction | None = None
) -> FittedHands:
    """Fit N right hands (left ones mirrored) to their keypoints in images with intrinsics K_px (N, 3, 3).

    batch: the crops of the same hands; network: a prediction in the axes of the image that is used as evidence too.
    """
    fitter, layer = _hand_model(str(default_hand_path("right")))
    observed = observe(detected.detections, detected.sides, batch.image_size_px.numpy(), K_px)
    if network is not None:
        observed = with_relative(observed, network.joints_m.double().numpy(), NETWORK_NOISE_M)
    fits = fitter.fit(observed)
    rotmats = axis_angle_to_matrix(torch.from_numpy(fits.pose_aa)).float()
    betas = torch.from_numpy(fits.betas).float()
    mesh = _posed(layer, rotmats, betas)
    joints_in_crop_m = in_crop_axes(mesh.joints_m, batch)
    camera = _crop_camera(joints_in_crop_m, batch)
    no_tokens = rotmats.new_zeros(len(detected), 0)
    hands = HandPrediction(
        rotmats=rotmats,
        betas=betas,
        camera=camera,
        vertices_m=mesh.vertices_m,
        joints_m=mesh.joints_m,
        joints_2d=project_crop(joints_in_crop_m, camera),
        tokens=PoseTokens(no_tokens.long(), no_tokens),
        token_confidence_of_joints=torch.full((len(detected), NUM_MANO_JOINTS), torch.nan),
        log_probability=torch.full((len(detected),), torch.nan),
        score=torch.zeros(len(detected)),
    )
    return FittedHands(hands, fit_features(observed, fits))


def _posed(layer: ManoLayer, rotmats: torch.Tensor, betas: torch.Tensor) -> HandMesh:
    """N posed hands, one by one (0.3 ms each): a hand is the same to the last bit whatever hands are beside it."""
    if not len(betas):
        return layer(rotmats, betas)
    meshes = [layer(rotmats[k : k + 1], betas[k : k + 1]) for k in range(len(betas))]
    return HandMesh(torch.cat([m.vertices_m for m in meshes]), torch.cat([m.joints_m for m in meshes]))


@functools.cache
def fit_calibration() -> JointCalibration:
    """The calibration of fits: `fit_calibration.json`, made by benchmarks/calibrate_fit.py."""
    return JointCalibration.model_validate_json(Path(__file__).with_name("fit_calibration.json").read_bytes())


def check_hand_model(digest: str) -> None:
    """Raises PredictError unless the configured right-hand model, which fits use, is the one with this digest."""
    layer = _hand_model(str(default_hand_path("right")))[1]
    if layer.digest != digest:
        raise PredictError(
            f"the model was trained with hand model {digest}, the fit would use {layer.digest}; point "
            "MASKHAND_MANO_DIR to the hand it was trained with, or unset it for the open hand"
        )


def hand_model_of(bundle: ModelBundle | None) -> tuple[str, Array]:
    """Digest and faces (1538, 3) of the bundle's right-hand model; of the configured one if bundle is None."""
    layer = _hand_model(str(default_hand_path("right")))[1] if bundle is None else bundle.model.mano
    return layer.digest, layer.faces.cpu().numpy()


def _crop_camera(joints_m: torch.Tensor, batch: HandBatch) -> torch.Tensor:
    """(N, 3) crop camera from the keypoints; if too few are detected, it places the hand in the middle of the crop."""
    keypoints = batch.keypoints_2d.double().numpy()
    weight = keypoints[..., 2]
    usable = (weight > 0).sum(1) >= MIN_SEEN
    middle = place_camera(joints_m.new_tensor([[MEAN_SCALE, 0.0, 0.0]]).expand(len(joints_m), 3), joints_m)
    fitted = crop_camera_on_points(
        joints_m.double().numpy(), keypoints[..., :2], np.where(usable[:, None], weight, 1.0)
    )
    return torch.where(torch.from_numpy(usable)[:, None], torch.from_numpy(fitted).float(), middle)


@functools.lru_cache(maxsize=1)
def _hand_model(path: str) -> tuple[ManoFitter, ManoLayer]:
    model = load_hand_model(path)
    return ManoFitter(model), ManoLayer(model)
