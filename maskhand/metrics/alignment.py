"""Alignments that evaluators apply to a prediction before they measure distances; (N, P, 3) arrays, float64.

None of them gives NaN for a degenerate hand: a prediction that is a single point is moved onto the true centroid.
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array

_TINY = 1e-8
"""FreiHAND's evaluator adds it to the norms; it moves a perfect prediction by 1e-8 of its size."""


def distances(points: Array, target: Array) -> Array:
    """(N, P, D) and (N, P, D) -> (N, P) Euclidean distances, in the inputs' unit."""
    squares = np.square(points - target)
    # one coordinate after the other, the order of numpy's sum in the official programs: the last bit decides whether a
    # perfect prediction is within the first threshold of the area under the curve, which is 0
    total = squares[..., 0]
    for k in range(1, squares.shape[-1]):
        total = total + squares[..., k]
    return np.asarray(np.sqrt(total))


def root_relative(points: Array, root: int = 0) -> Array:
    """(N, P, 3) with point `root` of each sample moved to the origin."""
    return np.asarray(points - points[:, root : root + 1])


def procrustes_align(points: Array, target: Array, valid: Array | None = None, *, reflection: bool = True) -> Array:
    """points (N, P, 3) moved onto target (N, P, 3) by the best scale, rotation and translation, sample by sample.

    valid (N, P) bool names the points the fit uses; all points are moved. reflection: may the rotation be a mirror?
    FreiHAND, HO-3D and DexYCB allow it (`align_w_scale`, scipy's `orthogonal_procrustes`), HaMeR and mmpose do not
    (`compute_similarity_transform`).
    """
    weight = np.ones((*points.shape[:2], 1)) if valid is None else valid[..., None].astype(np.float64)
    if valid is not None:  # what is not annotated may hold anything, NaN included; it must not reach a sum
        target = np.where(valid[..., None], target, 0.0)
    total = np.maximum(weight.sum(1, keepdims=True), 1)
    center, target_center = ((x * weight).sum(1, keepdims=True) / total for x in (points, target))
    moved, fixed = points - center, (target - target_center) * weight
    target_size = _norm(fixed) + _TINY
    moved /= _norm(moved * weight) + _TINY
    u, singular, vt = np.linalg.svd(moved.transpose(0, 2, 1) @ (fixed / target_size))
    if not reflection:
        sign = np.sign(np.linalg.det(u @ vt))
        u[:, :, 2] *= sign[:, None]
        singular[:, 2] *= sign
    scale = singular.sum(-1)[:, None, None]
    return np.asarray(scale * target_size * (moved @ (u @ vt)) + target_center)


def scale_translation_align(points: Array, target: Array, root: int = 0, end: int = 4) -> Array:
    """points (N, P, 3) scaled so that the bone root-end is as long as the target's, and moved root onto root.

    No rotation. HO-3D's `align_sc_tr`: root is the wrist and end the middle finger's MCP, number 4 in HO-3D's order.
    A predicted bone of length 0 leaves the prediction's own scale, times the true bone's length, as there.
    """
    length, wanted = (distances(x[:, end], x[:, root])[:, None, None] for x in (points, target))
    # divided before it is multiplied, as there: the last bit matters, see `distances`
    scaled = points / np.where(length > 0, length, 1.0) * wanted
    return np.asarray(root_relative(scaled, root) + target[:, root : root + 1])


def _norm(points: Array) -> Array:
    """(N, P, 3) -> (N, 1, 1) Frobenius norm."""
    return np.asarray(np.sqrt(np.einsum("npi,npi->n", points, points))[:, None, None])
