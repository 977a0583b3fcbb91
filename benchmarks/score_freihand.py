"""How long scoring FreiHAND's evaluation set takes: 3,960 predictions, joints and meshes, every metric.

    python benchmarks/score_freihand.py [--samples 3960] [--direct 120] [--files]

Prints seconds on all cores and CPU seconds, beside a direct implementation of the same numbers, sample by sample (scipy
for alignment, a k-d tree for the F-scores, lists of distances per point, as the official program is built), which is
measured on `--direct` samples of the same data in the same run and scaled. `--files` adds reading the JSON files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from maskhand.arrays import Array
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.scoring import freihand_ho3d as mesh
from maskhand.scoring.format import GroundTruth
from maskhand.scoring.io.stream import total


def hands(count: int, seed: int = 0) -> tuple[Array, Array]:
    """(count, 778, 3) true and predicted vertices: bent, turned and moved, 5 mm apart after alignment, 20 mm before."""
    rng = np.random.default_rng(seed)
    rest = load_hand_model(default_hand_path("right")).v_template_m

    def bend(amplitude_m: float) -> Array:
        return amplitude_m * np.sin(rest @ (20 * rng.normal(size=(count, 3, 3))) + rng.uniform(0, 6, (count, 1, 3)))

    truth = (rest + bend(0.02)) @ Rotation.random(count, random_state=seed).as_matrix() + (0, 0, 0.7)
    center = truth.mean(1, keepdims=True)
    turn = Rotation.from_rotvec(0.1 * rng.normal(size=(count, 3))).as_matrix()
    guess = (truth - center + bend(0.007)) @ turn * rng.uniform(0.9, 1.1, (count, 1, 1)) + center
    return truth, guess + 0.01 * rng.normal(size=(count, 1, 3))


def ours(xyz: Array, verts: Array, xyz_pred: Array, verts_pred: Array) -> dict[str, float]:
    joints = mesh.joint_errors(xyz_pred, xyz, None)
    starts = range(0, len(verts), mesh.AT_ONCE)
    pieces = ((verts_pred[k : k + mesh.AT_ONCE], verts[k : k + mesh.AT_ONCE]) for k in starts)
    meshes = total(pieces, lambda piece: mesh.mesh_errors(*piece))
    assert meshes is not None
    f = meshes.f.values
    return {
        "pa_mpjpe_mm": 1e3 * joints.aligned.mean,
        "auc_joints": joints.raw.pck_auc,
        "mpvpe_mm": 1e3 * meshes.raw.mean,
        "auc_vertices_aligned": meshes.aligned.pck_auc,
        "f_5mm": f[0],
        "f_15mm": f[1],
        "f_5mm_aligned": f[2],
        "f_15mm_aligned": f[3],
    }


def direct(xyz: Array, verts: Array, xyz_pred: Array, verts_pred: Array) -> dict[str, float]:
    """The same, one sample after the other."""
    counts = (21, 21, verts.shape[1], verts.shape[1])
    joints, joints_aligned, raw, aligned = (list[list[float]]([] for _ in range(points)) for points in counts)
    f: list[list[float]] = []
    for truth, true_mesh, guess, mesh_guess in zip(xyz, verts, xyz_pred, verts_pred, strict=True):
        _feed(joints, truth, guess)
        _feed(joints_aligned, truth, _align(truth, guess))
        moved = _align(true_mesh, mesh_guess)
        _feed(raw, true_mesh, mesh_guess)
        _feed(aligned, true_mesh, moved)
        f.append([_f_score(true_mesh, m, limit) for m in (mesh_guess, moved) for limit in (0.005, 0.015)])
    f_mean = np.mean(f, axis=0)
    _, joints_area = _measures(joints)
    joints_mean, _ = _measures(joints_aligned)
    raw_mean, _ = _measures(raw)
    _, aligned_area = _measures(aligned)
    return {
        "pa_mpjpe_mm": 1e3 * joints_mean,
        "auc_joints": joints_area,
        "mpvpe_mm": 1e3 * raw_mean,
        "auc_vertices_aligned": aligned_area,
        "f_5mm": f_mean[0],
        "f_15mm": f_mean[1],
        "f_5mm_aligned": f_mean[2],
        "f_15mm_aligned": f_mean[3],
    }


def _feed(by_point: list[list[float]], truth: Array, guess: Array) -> None:
    for values, distance in zip(by_point, np.sqrt(((truth - guess) ** 2).sum(1)), strict=True):
        values.append(float(distance))


def _align(truth: Array, guess: Array) -> Array:
    a, b = truth - truth.mean(0), guess - guess.mean(0)
    size, size_b = np.linalg.norm(a) + 1e-8, np.linalg.norm(b) + 1e-8
    rotation, scale = orthogonal_procrustes(a / size, b / size_b)
    return b / size_b @ rotation.T * scale * size + truth.mean(0)


def _f_score(truth: Array, guess: Array, limit: float) -> float:
    precision = np.mean(cKDTree(guess).query(truth)[0] < limit)
    recall = np.mean(cKDTree(truth).query(guess)[0] < limit)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _measures(by_point: list[list[float]]) -> tuple[float, float]:
    thresholds = np.linspace(0, 0.05, 100)
    means = [np.mean(values) for values in by_point]
    areas = [np.trapezoid([np.mean(np.array(v) <= t) for t in thresholds], thresholds) / 0.05 for v in by_point]
    return float(np.mean(means)), float(np.mean(areas))


def timed(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float, float]:
    """Result, seconds and CPU seconds of the quickest repeat."""
    best = (float("inf"), float("inf"))
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        best = min(best, (time.perf_counter() - wall, time.process_time() - cpu))
    return result, *best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=3960)
    parser.add_argument("--direct", type=int, default=120)
    parser.add_argument("--files", action="store_true")
    arguments = parser.parse_args()
    verts, verts_pred = hands(arguments.samples)
    chosen = np.random.default_rng(0).choice(verts.shape[1], 21, replace=False)
    arrays = (verts[:, chosen], verts, verts_pred[:, chosen], verts_pred)

    few = tuple(x[: arguments.direct] for x in arrays)
    direct_numbers, direct_s, direct_cpu = timed(lambda: direct(*few))
    worst = max(abs(ours(*few)[name] / value - 1) for name, value in direct_numbers.items())
    scale = arguments.samples / arguments.direct
    numbers, wall, cpu = timed(lambda: ours(*arrays), repeats=3)
    print(", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    print(f"{arguments.samples} samples: {wall:.2f} s, {cpu:.2f} CPU s")
    print(f"direct, {arguments.direct} samples scaled: {scale * direct_s:.1f} s, {scale * direct_cpu:.1f} CPU s")
    print(f"ratio: {scale * direct_s / wall:.1f} in time, {scale * direct_cpu / cpu:.1f} in CPU time; "
          f"largest relative difference {worst:.0e}")  # fmt: skip
    if arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            files(Path(folder), *arrays)


def files(folder: Path, xyz: Array, verts: Array, xyz_pred: Array, verts_pred: Array) -> None:
    for name, values in (("evaluation_xyz", xyz), ("evaluation_verts", verts)):
        (folder / f"{name}.json").write_text(json.dumps(values.tolist()))
    (folder / "pred.json").write_text(json.dumps([xyz_pred.tolist(), verts_pred.tolist()]))
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    labels = GroundTruth(folder, "", {"evaluation": 3960})
    _, wall, cpu = timed(lambda: mesh.FREIHAND.score(labels, folder / "pred.json"))
    print(f"from files ({megabytes:.0f} MB of JSON): {wall:.2f} s, {cpu:.2f} CPU s")
    _, wall, _ = timed(lambda: [json.loads(path.read_text()) for path in folder.iterdir()])
    print(f"json.loads of the same files alone: {wall:.2f} s")


if __name__ == "__main__":
    main()
