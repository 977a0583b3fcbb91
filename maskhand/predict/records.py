"""The hands of a photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from maskhand.conventions import Side
from maskhand.errors import MaskhandError

Array = np.ndarray

Method = Literal["fit", "model", "refine"]
"""How a hand is reconstructed: by a fit to the detected keypoints, by the network, or by a fit to both."""

METHODS: tuple[Method, ...] = get_args(Method)


SEEN = 0.2
"""Mean confidence of keypoints below which they are no evidence: of 16 such hands in real photos all were wrong."""


class PredictError(MaskhandError, ValueError):
    """A photo, box or setting that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class PlacedHand:
    """A hand before the photo's camera. Camera axes are OpenCV's; pixels are the photo's."""

    pose_aa: Array
    """(16, 3) absolute MANO axis-angle, global orientation first, radians."""
    betas: Array
    """(10,)."""
    transl_cam_m: Array
    """(3,) added to the model's vertices and joints: places the hand before the photo's camera."""
    vertices_cam_m: Array
    """(778, 3)."""
    joints_cam_m: Array
    """(21, 3) OpenPose order."""
    joints_px: Array
    """(21, 2) projections of joints_cam_m."""
    crop_camera: Array
    """(3,) s, tx, ty for the (mirrored, if left) crop: the network's own, whatever placed the hand; for a fit that of
    the keypoints."""
    joint_confidence: Array
    """(16,) mean probability of the pose tokens, for each MANO joint weighted by their influence on it; NaN for a
    fitted hand, which is not made of tokens."""
    tokens: Array
    """(L,) int64, the sequence of pose tokens (for a left hand those of its mirror image); a fitted hand has none."""
    token_confidence: Array
    """(L,) probability of each token when it was fixed."""
    log_probability: float
    """Mean of the pose tokens' logarithms of `token_confidence`; NaN without tokens."""


@dataclass(frozen=True)
class Hypothesis(PlacedHand):
    """One of the hands that the photo allows, drawn from the model's distribution."""

    drawn: int
    """How many of the draws gave this very string of tokens."""
    score: float
    """Minus its distance from the middle of all draws, after alignment, millimeters (`models/consensus.py`)."""


@dataclass(frozen=True)
class PredictedHand(PlacedHand):
    """One hand of a photo, as it is seen there."""

    side: Side
    """Of the mesh and the MANO parameters."""
    side_known: bool
    """Whether the side was given, or told by keypoints that were seen."""
    box_xyxy_px: Array
    """(4,)."""
    detection_score: float | None
    """0..1, how sure the hand finder is; None when the box was given."""
    keypoints_px: Array
    """(21, 2) what the 2D detector saw, OpenPose order."""
    keypoints_confidence: Array
    """(21,)."""
    faces: Array
    """(1538, 3) outward winding for this side."""
    K_px: Array
    """(3, 3) the camera used: the given focal length, or the assumed one."""
    crop_from_image: Array
    """(2, 3) affine from the (mirrored, if left) photo to the crop."""
    p_within_10mm: Array
    """(21,) probability that a joint lies within 10 mm of the truth, once the whole hand is laid over the true one
    (similarity alignment, as PA-MPJPE does); NaN where the method is not calibrated."""
    joint_error_mm: Array
    """(21,) expected distance of each joint from the truth, alike."""
    detector: str
    """Name of the detector that saw the keypoints."""
    method: Method
    hand_model: str
    """Digest of the hand model file."""
    hypotheses: tuple[Hypothesis, ...] = ()
    """Different ones among those asked for, nearest to their middle first."""

    @property
    def is_guess(self) -> bool:
        """Its keypoints were hardly seen: what is shown is a hand, but not evidence of this one."""
        return float(self.keypoints_confidence.mean()) < SEEN

    @property
    def joint_spread_m(self) -> Array:
        """(21,) root mean square distance of the drawn hands' joints from their mean, wrists together.

        Raises ValueError without hypotheses.
        """
        if not self.hypotheses:
            raise ValueError("no hypotheses were asked for: there is no spread")
        joints = np.stack([h.joints_cam_m - h.joints_cam_m[0] for h in self.hypotheses])
        weights = np.array([h.drawn for h in self.hypotheses], np.float64)
        mean = np.average(joints, axis=0, weights=weights)
        return np.sqrt(np.average(((joints - mean) ** 2).sum(-1), axis=0, weights=weights))
