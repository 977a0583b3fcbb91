"""The surface that is rendered: the 778-vertex hand, smoothed once, continued by a forearm that leaves the image.

Skinning stays on the 778 vertices; one step of Loop subdivision is a constant sparse matrix applied after posing, so
silhouettes are round while labels remain the model's vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from maskhand.arrays import Array32
from maskhand.hand.model_file import HandModel

Indices = NDArray[np.int64]

FOREARM_RINGS = 12
FOREARM_LENGTH_M = 0.45
# the wrist bends over this length instead of at one ring, so that the skin does not crease like a pipe
WRIST_BEND_LENGTH_M = 0.035
PAINT_SEED = 2
# girth of a forearm relative to the wrist's, at its thickest (about 60 % of the way to the elbow)
FOREARM_SWELL = 0.45


@dataclass(frozen=True)
class Arm:
    """The shape of the forearm behind the wrist."""

    flexion_rad: float
    """Bend of the wrist about the palm's left-right axis, positive when the palm approaches the forearm."""
    deviation_rad: float
    """Sideways bend of the wrist, positive towards the thumb."""
    sleeve_from_m: float
    """Distance from the wrist at which a sleeve begins; beyond `FOREARM_LENGTH_M` there is none."""
    sleeve_slack: float
    """Radius of the sleeve relative to the arm's, minus one."""


@dataclass(frozen=True)
class ArmMesh:
    """Hand and forearm as one closed triangle mesh; the first `hand_vertices` vertices are the smoothed hand."""

    vertices_m: Array32
    """(V, 3)"""
    normals: Array32
    """(V, 3) unit, outward."""
    faces: Indices
    """(F, 3)"""
    hand_faces: int
    """Faces [0, hand_faces) are the hand, [hand_faces, sleeve_face) bare forearm, the rest is sleeve."""
    sleeve_face: int
    wrist_distance_m: Array32
    """(V,) distance behind the wrist's edge; zero on the hand."""
    palmar: Array32
    """(V,) cosine between the normal and the palm side of hand or forearm."""
    noise: Array32
    """(V, 2) smooth unit noise on the forearm, zero on the hand, whose noise is painted."""


def loop_subdivision(faces: Indices, vertices: int) -> tuple[sparse.csr_matrix, Indices]:
    """One step of Loop's scheme (Loop 1987, boundary rules of Hoppe et al. 1994) as a matrix.

    faces (F, 3) -> matrix (vertices + edges, vertices) and faces (4F, 3); the boundary is subdivided as a curve.
    """
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, edge_of_half = np.unique(np.sort(half, axis=1), axis=0, return_inverse=True)
    edge_of_half = edge_of_half.reshape(-1)
    uses = np.bincount(edge_of_half, minlength=len(edges))
    inner = uses == 2

    rows, cols, values = [], [], []

    def put(row: Indices, col: Indices, value: NDArray[np.float64] | float) -> None:
        rows.append(row)
        cols.append(col)
        values.append(np.broadcast_to(value, row.shape).astype(np.float64))

    edge_rows = vertices + np.arange(len(edges))
    for end in (0, 1):
        put(edge_rows, edges[:, end], np.where(inner, 3 / 8, 1 / 2))
    of_inner = inner[edge_of_half]
    put(edge_rows[edge_of_half[of_inner]], opposite[of_inner], 1 / 8)

    border_edges = edges[~inner]
    border = np.zeros(vertices, bool)
    border[border_edges.reshape(-1)] = True
    both = np.concatenate([edges, edges[:, ::-1]])
    valence = np.bincount(both[:, 0], minlength=vertices)
    beta = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / np.maximum(valence, 1)) / 4) ** 2) / np.maximum(valence, 1)
    everyone = np.arange(vertices)
    put(everyone, everyone, np.where(border, 3 / 4, 1 - valence * beta))
    inside = ~border[both[:, 0]]
    put(both[inside, 0], both[inside, 1], beta[both[inside, 0]])
    both_border = np.concatenate([border_edges, border_edges[:, ::-1]])
    put(both_border[:, 0], both_border[:, 1], 1 / 8)

    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))),
        shape=(vertices + len(edges), vertices),
        dtype=np.float32,
    )
    ab, bc, ca = (vertices + edge_of_half.reshape(3, -1))[:, :]
    a, b, c = faces.T
    return matrix, np.concatenate(
        [np.stack(t, 1) for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
    ).astype(np.int64)


def boundary_loop(faces: Indices) -> Indices:
    """(L,) vertices of the one open edge in order, directed as the missing neighbor face would traverse it."""
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in half}
    following = {b: a for a, b in present if (b, a) not in present}
    if not following:
        raise ValueError("The hand mesh has no open edge at the wrist; a forearm can only be added to an open mesh.")
    start = min(following)
    loop = [start]
    while following[loop[-1]] != start:
        loop.append(following[loop[-1]])
    if len(loop) != len(following):
        raise ValueError("The hand mesh has more than one opening; only the wrist may be open.")
    return np.array(loop, np.int64)


def vertex_normals(vertices_m: Array32, faces: Indices, incidence: sparse.csr_matrix) -> Array32:
    """(V, 3) area-weighted unit normals. incidence (V, F) holds a one where a vertex belongs to a face."""
    a, b, c = vertices_m[faces[:, 0]], vertices_m[faces[:, 1]], vertices_m[faces[:, 2]]
    normals = incidence @ np.cross(b - a, c - a)
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)).astype(np.float32)


def incidence_matrix(faces: Indices, vertices: int) -> sparse.csr_matrix:
    ones = np.ones(faces.size, np.float32)
    return sparse.csr_matrix((ones, (faces.reshape(-1), np.repeat(np.arange(len(faces)), 3))), (vertices, len(faces)))


class HandSurface:
    """The constant part of the rendered surface: subdivision, forearm topology, incidence."""

    def __init__(self, model: HandModel) -> None:
        self.model = model
        self.smooth, self.hand_faces = loop_subdivision(model.faces, len(model.v_template_m))
        self.loop = boundary_loop(self.hand_faces)
        ring, hand_vertices = len(self.loop), self.smooth.shape[0]
        rings = np.concatenate(
            [self.loop[None], hand_vertices + np.arange(FOREARM_RINGS * ring).reshape(FOREARM_RINGS, ring)]
        )
        ahead = np.roll(rings, -1, axis=1)
        a, b, c, d = rings[:-1], ahead[:-1], rings[1:], ahead[1:]
        quads = np.stack([np.stack([a, b, c], -1), np.stack([b, d, c], -1)], 2)
        center = hand_vertices + FOREARM_RINGS * ring
        cap = np.stack([rings[-1], ahead[-1], np.full(ring, center)], -1)
        self.faces = np.concatenate([self.hand_faces, quads.reshape(-1, 3), cap]).astype(np.int64)
        self.vertex_count = center + 1
        self.faces_per_ring = 2 * ring
        self.incidence = incidence_matrix(self.faces, self.vertex_count)
        rng = np.random.default_rng(PAINT_SEED)
        self.noise = np.zeros((self.vertex_count, 2), np.float32)
        self.noise[hand_vertices:] = rng.standard_normal((self.vertex_count - hand_vertices, 2))
        # distances of the rings behind the wrist: dense where it bends
        self.ring_at_m = FOREARM_LENGTH_M * np.linspace(0, 1, FOREARM_RINGS + 1)[1:] ** 1.6

    def build(self, vertices_m: Array32, hand_axes: Array32, arm: Arm) -> ArmMesh:
        """Smooth a posed hand and grow the forearm.

        vertices_m (778, 3) posed; hand_axes (3, 3) the posed directions of the rest frame's x (towards the elbow),
        y (back of the hand) and z (towards the thumb) as columns.
        """
        hand = self.smooth @ vertices_m
        edge = hand[self.loop]
        center = edge.mean(0)
        local = (edge - center) @ hand_axes  # in the hand's own axes; x is the arm's direction
        # between the rings of the bend the direction turns evenly
        share = np.clip(self.ring_at_m / WRIST_BEND_LENGTH_M, 0, 1)
        pitch, yaw = share * arm.flexion_rad, share * arm.deviation_rad
        # flexion lowers the palm, so seen from the hand the arm goes down (-y); deviation to the thumb: arm to -z
        along = np.stack([np.cos(pitch) * np.cos(yaw), -np.sin(pitch), -np.cos(pitch) * np.sin(yaw)], -1)
        steps = np.diff(self.ring_at_m, prepend=0.0)[:, None]
        centers = np.cumsum(along * steps, axis=0)
        swell = 1 + FOREARM_SWELL * np.sin(np.clip(self.ring_at_m / 0.2, 0, 1) * np.pi / 2) ** 2
        sleeved = self.ring_at_m >= arm.sleeve_from_m
        radius = swell * np.where(sleeved, 1 + arm.sleeve_slack, 1.0)
        side_y = np.stack([np.sin(pitch), np.cos(pitch), np.zeros_like(pitch)], -1)
        side_z = np.cross(along, side_y)
        # the cut is not quite flat nor round; both fade out up the arm into an ellipse
        fade = np.exp(-self.ring_at_m / 0.03)[:, None]
        angle = np.arctan2(local[:, 1], local[:, 2])
        spread = np.sqrt((local[:, 1:] ** 2).mean(0) * 2)
        oval = np.stack([spread[0] * np.sin(angle), spread[1] * np.cos(angle)])
        y = fade * local[:, 1] + (1 - fade) * oval[0]
        z = fade * local[:, 2] + (1 - fade) * oval[1]
        # the offset along the arm of the uneven cut fades as well, or the first rings would fold over
        x = fade * local[:, 0]
        rings = centers[:, None] + x[..., None] * along[:, None]
        rings = rings + radius[:, None, None] * (y[..., None] * side_y[:, None] + z[..., None] * side_z[:, None])
        end = rings[-1].mean(0, keepdims=True)
        arm_points = np.concatenate([rings.reshape(-1, 3), end]) @ hand_axes.T + center
        vertices = np.concatenate([hand, arm_points.astype(np.float32)])
        distance = np.concatenate(
            [np.zeros(len(hand)), np.repeat(self.ring_at_m, len(self.loop)), [FOREARM_LENGTH_M]]
        ).astype(np.float32)
        bare = int(np.argmax(sleeved)) if sleeved.any() else FOREARM_RINGS + 1
        normals = vertex_normals(vertices, self.faces, self.incidence)
        return ArmMesh(
            vertices_m=vertices,
            normals=normals,
            noise=self.noise,
            palmar=-normals @ hand_axes[:, 1].astype(np.float32),
            faces=self.faces,
            hand_faces=len(self.hand_faces),
            sleeve_face=min(len(self.hand_faces) + bare * self.faces_per_ring, len(self.faces)),
            wrist_distance_m=distance,
        )
