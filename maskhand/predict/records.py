"""The records of predicted hands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.errors import MaskhandError

if TYPE_CHECKING:
    from maskhand.predict.modes import Mode

Method = Literal["fit", "model", "refine"]
"""How a hand is reconstructed: fit to the detected keypoints, network prediction, or fit to both."""

CameraOrigin = Literal["focal", "intrinsics", "exif", "assumed"]
"""The source of a camera's values: a given focal length, given intrinsics, EXIF, or an assumption."""

METHODS: tuple[Method, ...] = get_args(Method)


MIN_MEAN_CONFIDENCE = 0.2
"""Mean keypoint confidence below which a hand is a guess: all 16 such hands in real photos were wrong."""


class PredictError(MaskhandError, ValueError):
    """A photo, box or setting that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class PlacedHand:
    """A hand in camera space. Camera axes are OpenCV's; pixels are the photo's."""

    pose_aa: Array
    """(16, 3) absolute MANO axis-angle, global orientation first, radians."""
    betas: Array
    """(10,)."""
    transl_cam_m: Array
    """(3,) translation of the model's vertices and joints into camera space."""
    vertices_cam_m: Array
    """(778, 3)."""
    joints_cam_m: Array
    """(21, 3) OpenPose order."""
    joints_px: Array
    """(21, 2) projections of joints_cam_m."""
    crop_camera: Array
    """(3,) s, tx, ty for the (mirrored, if left) crop: from the network, however the hand was placed; for a fit from
    the keypoints."""
    token_confidence_of_joints: Array
    """(16,) mean probability of the pose tokens, weighted by their influence on each MANO joint; NaN for a fitted hand
    (no tokens)."""
    tokens: Array
    """(L,) int64, the pose tokens (of the mirrored hand, if left); empty for a fitted hand."""
    token_confidence: Array
    """(L,) probability of each token when it was fixed."""
    log_probability: float
    """Mean logarithm of `token_confidence`; NaN without tokens."""


@dataclass(frozen=True)
class Hypothesis(PlacedHand):
    """A hand sampled from the model's distribution for the photo."""

    drawn: int
    """Number of samples with this token sequence."""
    score: float
    """Negative PA-MPJPE to the mean of all samples, millimeters (`models/consensus.py`)."""


@dataclass(frozen=True)
class FilledHand(PlacedHand):
    """A state of the network's hand during decoding; tokens not yet fixed contribute their expected code vectors."""

    fixed: Array
    """(L,) bool: the tokens that are fixed."""


@dataclass(frozen=True)
class PredictedHand(PlacedHand):
    """A predicted hand of a photo."""

    side: Side
    """The side of the mesh and the MANO parameters."""
    side_known: bool
    """Whether the side was given, or the keypoints are confident enough to determine it."""
    box_xyxy_px: Array
    """(4,)."""
    detection_score: float | None
    """0..1, confidence of the hand finder; None for a given box without a score."""
    keypoints_px: Array
    """(21, 2) detected 2D keypoints, OpenPose order."""
    keypoints_confidence: Array
    """(21,)."""
    faces: Array
    """(1538, 3) faces with outward winding for this side."""
    K_px: Array
    """(3, 3) intrinsics of the upright photo, see `camera_origin`."""
    crop_from_image: Array
    """(2, 3) affine from the (mirrored, if left) photo to the crop."""
    p_within_10mm: Array
    """(21,) probability that a joint is within 10 mm of the truth after Procrustes alignment of the hand; NaN if the
    method is not calibrated."""
    joint_error_mm: Array
    """(21,) expected error of each joint after Procrustes alignment."""
    detector: str
    """Name of the keypoint detector."""
    method: Method
    hand_model: str
    """Digest of the hand model file."""
    camera_origin: CameraOrigin = "assumed"
    """The source of `K_px`; depth is metric unless it is `assumed`."""
    hypotheses: tuple[Hypothesis, ...] = ()
    """Distinct hypotheses, nearest to their mean first."""
    modes: tuple[Mode, ...] = ()
    """Modes of the hypotheses, the most frequent first."""
    fill_in: tuple[FilledHand, ...] = ()
    """The network's hand before the first decoding pass, and after each pass."""

    @property
    def is_guess(self) -> bool:
        """Whether keypoint confidence is so low that the hand is mostly determined by the prior."""
        return float(self.keypoints_confidence.mean()) < MIN_MEAN_CONFIDENCE

    @property
    def joint_spread_m(self) -> Array:
        """(21,) root mean square distance of the sampled joints from their mean, relative to the wrist.

        Raises ValueError without hypotheses.
        """
        return self._spread_m([h.joints_cam_m - h.joints_cam_m[0] for h in self.hypotheses])

    @property
    def vertex_spread_m(self) -> Array:
        """(778,) as `joint_spread_m`, of the vertices."""
        return self._spread_m([h.vertices_cam_m - h.joints_cam_m[0] for h in self.hypotheses])

    def _spread_m(self, relative_m: list[Array]) -> Array:
        if not relative_m:
            raise ValueError("there are no hypotheses, so there is no spread")
        points = np.stack(relative_m)
        weights = np.array([h.drawn for h in self.hypotheses], np.float64)
        mean = np.average(points, axis=0, weights=weights)
        return np.sqrt(np.average(((points - mean) ** 2).sum(-1), axis=0, weights=weights))
