"""Hands by fit: the most probable hand for what a detector saw, and for what a network says where there is one.

`annotate.fit` does the work on arrays (any number of hands of any images at once); this gives it an image's hands and
returns them in the form in which networks predict.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from maskhand.annotate.fit.detected import observe, with_relative
from maskhand.annotate.fit.fitter import ManoFitter
from maskhand.batch import HandBatch, HandPrediction, PoseTokens
from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.camera import crop_camera_on_points, project_crop
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.bundle import ModelBundle
from maskhand.models.shape_camera_head import MEAN_SCALE, place_camera
from maskhand.placement import MIN_SEEN
from maskhand.predict.detect import SeenHands
from maskhand.predict.records import Array, PredictError

NETWORK_NOISE_M = 0.03
"""Standard deviation of a coordinate of the network's joints in `refine`, chosen on 60 real hands."""


def fit_hands(seen: SeenHands, batch: HandBatch, K_px: Array, network: HandPrediction | None = None) -> HandPrediction:
    """N right hands (left ones mirrored) fitted to what was seen of them in one image with intrinsics K_px (3, 3).

    batch: the same hands' crops; network: its hands, which the fit then takes as evidence too. The hands are not made
    of tokens: they have none, and no probability.
    """
    fitter, layer = _hand_model(str(default_hand_path("right")))
    observed = observe(
        seen.detections, seen.sides, batch.image_size_px.numpy(), np.broadcast_to(K_px, (len(seen), 3, 3))
    )
    if network is not None:
        observed = with_relative(observed, network.joints_m.double().numpy(), NETWORK_NOISE_M)
    fits = fitter.fit(observed)
    rotmats = axis_angle_to_matrix(torch.from_numpy(fits.pose_aa)).float()
    betas = torch.from_numpy(fits.betas).float()
    mesh = layer(rotmats, betas)
    camera = _crop_camera(mesh.joints_m, batch)
    nothing = rotmats.new_zeros(len(seen), 0)
    return HandPrediction(
        rotmats=rotmats,
        betas=betas,
        camera=camera,
        vertices_m=mesh.vertices_m,
        joints_m=mesh.joints_m,
        joints_2d=project_crop(mesh.joints_m, camera),
        tokens=PoseTokens(nothing.long(), nothing),
        joint_confidence=torch.full((len(seen), NUM_MANO_JOINTS), torch.nan),
        log_probability=torch.full((len(seen),), torch.nan),
        score=torch.zeros(len(seen)),
    )


def check_hand_model(digest: str) -> None:
    """PredictError unless the configured right hand, which fits use, is the one that a network was trained with."""
    layer = _hand_model(str(default_hand_path("right")))[1]
    if layer.digest != digest:
        raise PredictError(
            f"the model was trained with hand model {digest}, the fit would use {layer.digest}; point "
            "MASKHAND_MANO_DIR to the hand it was trained with, or unset it for the open hand"
        )


def hand_model_of(bundle: ModelBundle | None) -> tuple[str, Array]:
    """Digest and faces (1538, 3) of the right hand that hands are made of; without a bundle the configured one."""
    layer = _hand_model(str(default_hand_path("right")))[1] if bundle is None else bundle.model.mano
    return layer.digest, layer.faces.cpu().numpy()


def _crop_camera(joints_m: torch.Tensor, batch: HandBatch) -> torch.Tensor:
    """(N, 3) the crop camera that the keypoints say; where too few are seen, the hand stands in the crop's middle."""
    keypoints = batch.keypoints_2d.double().numpy()
    weight = keypoints[..., 2]
    usable = (weight > 0).sum(1) >= MIN_SEEN
    middle = place_camera(joints_m.new_tensor([[MEAN_SCALE, 0.0, 0.0]]).expand(len(joints_m), 3), joints_m)
    seen = crop_camera_on_points(joints_m.double().numpy(), keypoints[..., :2], np.where(usable[:, None], weight, 1.0))
    return torch.where(torch.from_numpy(usable)[:, None], torch.from_numpy(seen).float(), middle)


@functools.lru_cache(maxsize=1)
def _hand_model(path: str) -> tuple[ManoFitter, ManoLayer]:
    model = load_hand_model(path)
    return ManoFitter(model), ManoLayer(model)
