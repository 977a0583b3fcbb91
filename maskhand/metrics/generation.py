"""Metrics of generated hands: how different they are from each other, how plausible, how near to a given mesh.

The paper names these metrics without defining them (Tables 6 and 11); they are defined here, in the units that fit the
sizes of its numbers: meters for Hausdorff, square meters for Chamfer.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from maskhand.arrays import Array


def average_pairwise_distance(points: Array) -> float:
    """APD of N hands (N, P, 3): the mean distance of corresponding points over all pairs of different hands.

    In the unit of the points; turn the hands to one global orientation first. At least two hands.
    """
    count = len(points)
    if count < 2:
        raise ValueError(f"the average pairwise distance needs at least 2 hands, got {count}")
    sums = [np.sqrt(((points[k + 1 :] - points[k]) ** 2).sum(-1)).mean(-1).sum() for k in range(count - 1)]
    return float(np.sum(sums) / (count * (count - 1) / 2))


def chamfer(points: Array, target: Array) -> Array:
    """(N, P, 3) and (N, Q, 3) -> (N,): mean squared distance to the nearest point, both ways added, unit squared."""
    return np.array([(a**2).mean() + (b**2).mean() for a, b in _nearest(points, target)])


def hausdorff(points: Array, target: Array) -> Array:
    """(N, P, 3) and (N, Q, 3) -> (N,): the largest distance to the nearest point, either way."""
    return np.array([max(a.max(), b.max()) for a, b in _nearest(points, target)])


def _nearest(points: Array, target: Array) -> list[tuple[Array, Array]]:
    """Per sample the distances of all points to their nearest target, and of all targets."""
    return [(cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]) for a, b in zip(points, target, strict=True)]


def self_intersection(vertices: Array, faces: Array) -> Array:
    """(N, V, 3) and (F, 3) -> (N,) fraction of faces that pass through another face of the same mesh, 0 to 1.

    Faces that share a vertex are neighbors and never counted; faces that only touch do not count either.
    """
    return np.array([_crossing_faces(mesh[faces], faces).mean() for mesh in vertices])


def _crossing_faces(triangles: Array, faces: Array) -> Array:
    """(F, 3, 3) corners and (F, 3) vertex ids -> (F,) bool."""
    center = triangles.mean(1)
    radius = np.sqrt(((triangles - center[:, None]) ** 2).sum(-1)).max()
    pairs = cKDTree(center).query_pairs(2 * radius, output_type="ndarray")
    low, high = triangles.min(1), triangles.max(1)
    a, b = pairs.T
    near = ((low[a] <= high[b]) & (low[b] <= high[a])).all(1)
    neighbors = (faces[a][:, :, None] == faces[b][:, None, :]).any((1, 2))
    a, b = pairs[near & ~neighbors].T
    meet = np.zeros(len(a), bool)
    for first, second in ((triangles[a], triangles[b]), (triangles[b], triangles[a])):
        for k in range(3):
            meet |= _pierces(first[:, k], first[:, (k + 1) % 3], second)
    crossing = np.zeros(len(faces), bool)
    crossing[a[meet]] = crossing[b[meet]] = True
    return crossing


def _pierces(start: Array, end: Array, triangle: Array) -> Array:
    """(K,) bool: does the segment from start to end (K, 3) go through the inside of the triangle (K, 3, 3)?"""
    corners = [triangle[:, k] for k in range(3)]
    above, below = (_volume(p, *corners) for p in (start, end))
    sides = [_volume(start, end, corners[k], corners[(k + 1) % 3]) for k in range(3)]
    same = ((sides[0] > 0) & (sides[1] > 0) & (sides[2] > 0)) | ((sides[0] < 0) & (sides[1] < 0) & (sides[2] < 0))
    return np.asarray((above * below < 0) & same)


def _volume(a: Array, b: Array, c: Array, d: Array) -> Array:
    """(K,) six times the signed volume of tetrahedra."""
    return np.einsum("ki,ki->k", a - d, np.cross(b - d, c - d))
