"""The official evaluators once more, sample by sample and joint by joint, written from their published definitions.

Slow on purpose and sharing nothing with the product: scipy's Procrustes, scipy's table of distances, Python loops.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist


class Collected:
    """Distances by point; means and areas per point, then averaged (FreiHAND's EvalUtil)."""

    def __init__(self, points: int) -> None:
        self.by_point: list[list[float]] = [[] for _ in range(points)]

    def feed(self, truth, guess, seen=None) -> None:
        for k in range(len(truth)):
            if seen is None or seen[k]:
                self.by_point[k].append(float(np.sqrt(np.sum(np.square(truth[k] - guess[k])))))

    def mean(self) -> float:
        return float(np.mean([np.mean(values) for values in self.by_point if values]))

    def area(self, limit: float) -> float:
        thresholds = np.linspace(0, limit, 100)
        whole = np.trapezoid(np.ones(100), thresholds)
        areas = []
        for values in self.by_point:
            if values:
                curve = [np.mean(np.array(values) <= t) for t in thresholds]
                areas.append(np.trapezoid(curve, thresholds) / whole)
        return float(np.mean(areas))


def align(truth, guess):
    """Scale, rotation or mirror, translation."""
    a, b = truth - truth.mean(0), guess - guess.mean(0)
    size_a, size_b = np.linalg.norm(a) + 1e-8, np.linalg.norm(b) + 1e-8
    rotation, scale = orthogonal_procrustes(a / size_a, b / size_b)
    return (b / size_b) @ rotation.T * scale * size_a + truth.mean(0)


def align_without_mirror(truth, guess):
    """HaMeR's similarity transform."""
    mu_b, mu_a = guess.mean(0), truth.mean(0)
    b, a = (guess - mu_b).T, (truth - mu_a).T
    covariance = b @ a.T
    u, _, vt = np.linalg.svd(covariance)
    rotation = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ u.T
    scale = np.trace(rotation @ covariance) / (b**2).sum()
    return scale * guess @ rotation.T + (mu_a - scale * rotation @ mu_b)


def align_scale_translation(truth, guess):
    """HO-3D: bone 0-4 as long as the true one, wrist on wrist."""
    length = np.sqrt(np.sum((guess[4] - guess[0]) ** 2))
    scaled = guess / length if length > 0 else guess.copy()
    scaled = scaled * np.sqrt(np.sum((truth[4] - truth[0]) ** 2))
    return scaled - scaled[0] + truth[0]


def f_score(truth, guess, limit):
    table = cdist(truth, guess)
    precision = sum(d < limit for d in table.min(1)) / len(truth)
    recall = sum(d < limit for d in table.min(0)) / len(guess)
    return 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0


def mesh_benchmark(xyz, verts, xyz_pred, verts_pred, scale_translation=False) -> dict[str, float]:
    """FreiHAND's eval.py, and HO-3D's."""
    kinds = ("", "_aligned")
    joints = {kind: Collected(xyz.shape[1]) for kind in (*kinds, "_st")}
    meshes = {kind: Collected(verts.shape[1]) for kind in kinds}
    f: dict[str, list[float]] = {f"f_{t}mm{kind}": [] for t in (5, 15) for kind in kinds}
    for truth, mesh, guess, mesh_guess in zip(xyz, verts, xyz_pred, verts_pred, strict=True):
        joints[""].feed(truth, guess)
        joints["_aligned"].feed(truth, align(truth, guess))
        joints["_st"].feed(truth, align_scale_translation(truth, guess))
        for kind, moved in (("", mesh_guess), ("_aligned", align(mesh, mesh_guess))):
            meshes[kind].feed(mesh, moved)
            for t in (5, 15):
                f[f"f_{t}mm{kind}"].append(f_score(mesh, moved, t / 1000))
    scores = {
        "mpjpe_mm": 1000 * joints[""].mean(),
        "pa_mpjpe_mm": 1000 * joints["_aligned"].mean(),
        "mpvpe_mm": 1000 * meshes[""].mean(),
        "pa_mpvpe_mm": 1000 * meshes["_aligned"].mean(),
        "auc_joints": joints[""].area(0.05),
        "auc_joints_aligned": joints["_aligned"].area(0.05),
        "auc_vertices": meshes[""].area(0.05),
        "auc_vertices_aligned": meshes["_aligned"].area(0.05),
        **{name: float(np.mean(values)) for name, values in f.items()},
    }
    if scale_translation:
        scores["scale_translation_mpjpe_mm"] = 1000 * joints["_st"].mean()
        scores["auc_joints_scale_translation"] = joints["_st"].area(0.05)
    return scores


def dexycb(image_id, joint_3d_m, predictions_mm: dict[int, np.ndarray]) -> dict[str, float]:
    """The toolkit's hpe_eval.py."""
    absolute, relative, aligned = Collected(21), Collected(21), Collected(21)
    for number, joints in zip(image_id, joint_3d_m, strict=True):
        if np.all(joints == -1):
            continue
        truth, guess = (joints * 1000).astype(np.float64), predictions_mm[int(number)]
        absolute.feed(truth, guess)
        relative.feed(truth - truth[0], guess - guess[0])
        aligned.feed(truth, align(truth, guess))
    parts = {"absolute": absolute, "root_relative": relative, "pa": aligned}
    means = {f"{name}_mpjpe_mm": part.mean() for name, part in parts.items()}
    return means | {f"{name}_auc": part.area(50.0) for name, part in parts.items()}


def interhand(truth, valid, hand_type, guess) -> dict[str, float]:
    """InterHand2.6M's Dataset.evaluate, for predictions with their root depth."""
    single: list[list[float]] = [[] for _ in range(42)]
    interacting: list[list[float]] = [[] for _ in range(42)]
    wrists = []
    for n in range(len(truth)):
        ok = valid[n].astype(float)
        ok[:21] *= ok[20]
        ok[21:] *= ok[41]
        if hand_type[n] == "interacting" and ok[20] and ok[41]:
            wrists.append(np.linalg.norm((guess[n][41] - guess[n][20]) - (truth[n][41] - truth[n][20])))
        a, b = truth[n].copy(), guess[n].copy()
        for hand, root in ((slice(0, 21), 20), (slice(21, 42), 41)):
            a[hand] -= truth[n][root]
            b[hand] -= guess[n][root]
        for j in range(42):
            if ok[j]:
                store = interacting if hand_type[n] == "interacting" else single
                store[j].append(float(np.sqrt(np.sum((a[j] - b[j]) ** 2))))
    pooled = [s + i for s, i in zip(single, interacting, strict=True)]
    means = {
        name: float(np.mean([np.mean(values) for values in lists if values]))
        for name, lists in (("all", pooled), ("single", single), ("interacting", interacting))
    }
    return {f"mpjpe_{name}_mm": value for name, value in means.items()} | {"mrrpe_mm": float(np.mean(wrists))}


def pck(guess, target, confidence, scale, threshold) -> float:
    """HaMeR's EvaluatorPCK, with the joints that are annotated at all."""
    shares = []
    for j in range(target.shape[1]):
        hits = [
            np.sqrt(((guess[n, j] - target[n, j]) ** 2).sum()) <= scale[n] * threshold
            for n in range(len(target))
            if confidence[n, j] > 0.5
        ]
        if hits:
            shares.append(np.mean(hits))
    return float(np.mean(shares))
