"""The modes of hypotheses: clusters of nearly equal sampled hands.

Average-linkage clustering (scipy) of the samples' distances, cut at `MODE_MM`: the mean distance between the samples
of two modes is larger than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from maskhand.arrays import Array
from maskhand.models.similarity import rotate_onto, squared_size

MODE_MM = 10.0
"""Distance at which modes are separated, PA-MPJPE in millimeters; the same as in `p_within_10mm`."""
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class Mode:
    """A cluster of nearly equal samples."""

    members: tuple[int, ...]
    """Indices of its distinct hypotheses."""
    share: float
    """0..1, its fraction of all samples."""
    medoid: int
    """Index of the member with the smallest mean distance to the mode's samples: the hand to show."""


def find_modes(joints_m: Array, drawn: Sequence[int], mode_mm: float = MODE_MM) -> tuple[Mode, ...]:
    """The modes of N hypotheses, most frequent first; joints_m (N, 21, 3) meters, drawn: how often each was sampled."""
    counts, distance_mm = np.asarray(drawn, np.int64), pairwise_mm(joints_m)
    of_draw = np.repeat(np.arange(len(counts)), counts)  # a hand drawn twice weighs twice
    labels = np.ones(len(of_draw), np.int64)
    if len(of_draw) > 1:
        tree = linkage(squareform(distance_mm[np.ix_(of_draw, of_draw)], checks=False), "average")
        labels = fcluster(tree, mode_mm, "distance")
    label_of = np.empty(len(counts), np.int64)
    label_of[of_draw] = labels
    modes = []
    for label in np.unique(labels):
        members = np.flatnonzero(label_of == label)
        from_draws = distance_mm[np.ix_(members, members)] @ counts[members]
        share = float(counts[members].sum() / counts.sum())
        modes.append(Mode(tuple(members.tolist()), share, int(members[from_draws.argmin()])))
    return tuple(sorted(modes, key=lambda mode: (-mode.share, mode.members)))


def pairwise_mm(joints_m: Array) -> Array:
    """(N, N) PA-MPJPE in millimeters between joints (N, P, 3): the mean of aligning either one to the other."""
    joints = np.asarray(joints_m, np.float64)
    centered = joints - joints.mean(1, keepdims=True)
    first, second = np.triu_indices(len(joints), 1)
    distance = np.zeros((len(joints), len(joints)))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        i, j = first[start : start + _PAIRS_AT_ONCE], second[start : start + _PAIRS_AT_ONCE]
        distance[i, j] = distance[j, i] = _pair_mm(centered[i], centered[j])
    return distance


def _pair_mm(a: Array, b: Array) -> Array:
    """(M,) for centered joints (M, P, 3)."""
    turned, product = rotate_onto(a, b)
    onto_b = (product / squared_size(a))[:, None, None] * turned - b
    onto_a = (product / squared_size(b))[:, None, None] * b - turned  # in the axes of b: the distances are the same
    return 1e3 * sum(np.linalg.norm(x, axis=2).mean(1) for x in (onto_a, onto_b)) / 2
