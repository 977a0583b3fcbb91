"""Half-edge-collapse decimation that keeps a subset of the vertices (Garland and Heckbert's quadric error).

Keeping original vertices means that whatever is defined on the source (blend shapes, weights) is simply indexed.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A little squared edge length keeps flat regions evenly meshed, so that the palm bends as well as it stands.
LENGTH_PENALTY = 1e-4
# A collapse may not turn a neighboring triangle by more than this (cosine), nor make a sliver (shape in 0..1).
MIN_NORMAL_COSINE = 0.3
MIN_SHAPE = 0.15


def decimate(
    poses_m: Array, faces: NDArray[np.int64], keep: int, locked: set[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Collapse edges until `keep` vertices are left.

    poses_m (P, V, 3) is the surface in one or more poses; errors add up over them, so that skin which is flat at
    rest but curved over a bent knuckle keeps its vertices. Triangle shapes are judged in the first pose.
    Returns (kept (keep,) ascending source ids, faces (F, 3) into `kept`). Vertices in `locked` survive.
    """
    mesh = _Mesh(poses_m, faces)
    alive = poses_m.shape[1]
    heap: list[tuple[float, int, int, int, int]] = []
    stamp = np.zeros(alive, dtype=np.int64)

    def push(v: int) -> None:
        for u in sorted(mesh.neighbors(v)):
            for gone, stay in ((u, v), (v, u)):
                if gone not in locked:
                    heapq.heappush(heap, (mesh.cost(gone, stay), gone, stay, int(stamp[gone]), int(stamp[stay])))

    for v in range(alive):
        push(v)
    while alive > keep:
        if not heap:
            raise ValueError(f"no edge can be collapsed any more at {alive} vertices; {keep} were asked for")
        _, gone, stay, gone_stamp, stay_stamp = heapq.heappop(heap)
        if stamp[gone] != gone_stamp or stamp[stay] != stay_stamp or not mesh.allows(gone, stay):
            continue
        touched = mesh.collapse(gone, stay)
        stamp[gone] = -1
        alive -= 1
        # a changed neighborhood may allow what was refused before, so its edges are queued anew
        for v in touched:
            stamp[v] += 1
        for v in sorted(touched):
            push(v)
    return mesh.compact()


class _Mesh:
    """Triangles with vertex-to-face adjacency and one error quadric per vertex and pose."""

    def __init__(self, poses_m: Array, faces: NDArray[np.int64]) -> None:
        count = poses_m.shape[1]
        self.points = poses_m[0]
        self.homogeneous = np.concatenate([poses_m, np.ones((len(poses_m), count, 1))], axis=2)
        self.rim = set(boundary_loop(faces))
        self.faces: dict[int, tuple[int, int, int]] = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
        self.around: list[set[int]] = [set() for _ in range(count)]
        self.quadric = np.zeros((count, len(poses_m), 4, 4))
        for i, corners in self.faces.items():
            a, b, c = poses_m[:, list(corners)].transpose(1, 0, 2)
            normal = np.cross(b - a, c - a)
            double_area = np.linalg.norm(normal, axis=1, keepdims=True)
            unit = normal / double_area
            plane = np.concatenate([unit, -(unit * a).sum(1, keepdims=True)], axis=1)
            contribution = double_area[..., None] / 6.0 * plane[:, :, None] * plane[:, None, :]
            for v in corners:
                self.around[v].add(i)
                self.quadric[v] += contribution

    def _normal(self, corners: tuple[int, int, int]) -> Array:
        a, b, c = self.points[list(corners)]
        return np.cross(b - a, c - a)

    def neighbors(self, v: int) -> set[int]:
        return {u for f in self.around[v] for u in self.faces[f]} - {v}

    def cost(self, gone: int, stay: int) -> float:
        point = self.homogeneous[:, stay]
        quadric = self.quadric[gone] + self.quadric[stay]
        length2 = float(((self.points[gone] - self.points[stay]) ** 2).sum())
        return float(np.einsum("pi,pij,pj->", point, quadric, point)) + LENGTH_PENALTY * length2 * length2

    def allows(self, gone: int, stay: int) -> bool:
        """The link condition (the surface stays a manifold) and well-shaped, unflipped triangles."""
        if gone in self.rim and stay not in self.rim:
            return False  # the opening would shrink
        shared = self.around[gone] & self.around[stay]
        opposite = {u for f in shared for u in self.faces[f]} - {gone, stay}
        if not shared or (self.neighbors(gone) & self.neighbors(stay)) != opposite:
            return False
        for f in self.around[gone] - shared:
            old = self.faces[f]
            a, b, c = (stay if v == gone else v for v in old)
            new = (a, b, c)
            before, after = self._normal(old), self._normal(new)
            size = float(np.linalg.norm(after))
            if before @ after < MIN_NORMAL_COSINE * float(np.linalg.norm(before)) * size or size == 0.0:
                return False
            corner = self.points[list(new)]
            edges2 = ((corner - np.roll(corner, 1, axis=0)) ** 2).sum()
            if 2.0 * np.sqrt(3.0) * size / edges2 < MIN_SHAPE:
                return False
        return True

    def collapse(self, gone: int, stay: int) -> set[int]:
        """Move `gone` onto `stay`; returns the vertices whose neighborhood changed."""
        for f in sorted(self.around[gone]):
            old = self.faces[f]
            if stay in old:
                del self.faces[f]
                for v in old:
                    self.around[v].discard(f)
            else:
                a, b, c = (stay if v == gone else v for v in old)
                self.faces[f] = (a, b, c)
                self.around[stay].add(f)
        self.around[gone] = set()
        self.quadric[stay] += self.quadric[gone]
        return self.neighbors(stay) | {stay}

    def compact(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        faces = np.array([self.faces[f] for f in sorted(self.faces)], dtype=np.int64)
        kept = np.unique(faces)
        return kept, np.searchsorted(kept, faces)


def boundary_loop(faces: NDArray[np.int64]) -> list[int]:
    """The vertices of the single opening, in the direction in which the faces run along it."""
    directed = {(int(a), int(b)) for tri in faces for a, b in zip(tri, np.roll(tri, -1), strict=True)}
    onward = {a: b for a, b in directed if (b, a) not in directed}
    loop = [min(onward)]
    while (after := onward[loop[-1]]) != loop[0]:
        loop.append(after)
    if len(loop) != len(onward):
        raise ValueError(f"the surface has more than one opening: {len(onward)} rim edges, {len(loop)} in one loop")
    return loop
