"""The MANO fitter on synthetic truth: accuracy and speed, beside a fit of one hand after the other by L-BFGS.

    python benchmarks/fit.py --hands 1000 --peer-hands 16

Truth: the open hand in poses of the pose prior (no statistic of the fitter was made with them), any global orientation,
betas within 2.5 deviations, before FreiHAND-like cameras of 224 x 224 pixels. Errors are mean distances without any
alignment, except PA. Times are CPU times of one process on one core, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand.annotate.fit.fitter import Fits, ManoFitter
from maskhand.annotate.fit.observed import Observed, no_relative
from maskhand.hand.anatomy import to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.view import fit_view, sample_betas

WANTED_PER_MINUTE = 2000
PEER_STEPS = 300


@dataclass(frozen=True)
class Truth:
    joints_m: np.ndarray
    """(N, 21, 3) camera axes."""
    vertices_m: np.ndarray
    """(N, 778, 3)"""
    K_px: np.ndarray
    """(N, 3, 3)"""

    @property
    def joints_px(self) -> np.ndarray:
        return project(self.joints_m, self.K_px)


def make_truth(count: int, seed: int) -> Truth:
    rng = np.random.default_rng(seed)
    pose = to_axis_angle(sample_poses(rng, count))
    pose[:, 0] = Rotation.random(count, random_state=rng).as_rotvec()
    betas = np.stack([sample_betas(rng) for _ in range(count)])
    joints, vertices = mesh(pose, betas, np.zeros((count, 3)))
    views = [fit_view(points, rng) for points in joints]
    transl = np.stack([view.transl_m for view in views])[:, None]
    return Truth(joints + transl, vertices + transl, np.stack([view.K_px for view in views]))


def mesh(pose_aa: np.ndarray, betas: np.ndarray, transl_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    layer = ManoLayer.from_default().double()
    with torch.no_grad():
        posed = layer.from_axis_angle(
            *(torch.from_numpy(np.asarray(a, np.float64)) for a in (pose_aa, betas, transl_m))
        )
    return posed.joints_m.numpy(), posed.vertices_m.numpy()


def project(points_m: np.ndarray, K_px: np.ndarray) -> np.ndarray:
    uvw = points_m @ K_px.swapaxes(1, 2)
    return uvw[..., :2] / uvw[..., 2:]


def procrustes_mm(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) mean distance after the best scale, rotation and translation."""
    a, b = points - points.mean(1, keepdims=True), truth - truth.mean(1, keepdims=True)
    u, s, vt = np.linalg.svd(a.swapaxes(1, 2) @ b)
    scale = s.sum(1) / (a**2).sum((1, 2))
    return 1000 * np.linalg.norm(scale[:, None, None] * (a @ (u @ vt)) - b, axis=2).mean(1)


def one_by_one(joints_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one would write first: axis-angle, betas and translation of one hand by L-BFGS on its joints."""
    layer, target = ManoLayer.from_default(), torch.from_numpy(joints_m.astype(np.float32))[None]
    pose, betas = torch.zeros(1, 16, 3, requires_grad=True), torch.zeros(1, 10, requires_grad=True)
    transl = target[:, 0].clone().requires_grad_()
    parameters = [pose, betas, transl]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=PEER_STEPS, history_size=20, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        apart = layer.from_axis_angle(pose, betas, transl).joints_m - target
        loss = 1e4 * apart.square().sum() + 1e-2 * betas.square().sum() + 1e-3 * pose[:, 1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        posed = layer.from_axis_angle(pose, betas, transl)
    return posed.joints_m[0].numpy(), posed.vertices_m[0].numpy()


def report(name: str, seconds: float, joints: np.ndarray, vertices: np.ndarray, truth: Truth) -> float:
    """Print a line and return hands per minute."""
    count = len(joints)
    joint_mm = 1000 * np.linalg.norm(joints - truth.joints_m[:count], axis=2).mean(1)
    vertex_mm = 1000 * np.linalg.norm(vertices - truth.vertices_m[:count], axis=2).mean(1)
    px = np.linalg.norm(project(joints, truth.K_px[:count]) - truth.joints_px[:count], axis=2).mean(1)
    pa = procrustes_mm(joints, truth.joints_m[:count])
    per_minute = 60 * count / seconds
    columns = (joint_mm.mean(), joint_mm.max(), vertex_mm.mean(), vertex_mm.max(), px.mean(), px.max(), pa.mean())
    print(f"| {name} | " + " | ".join(f"{c:.2f}" for c in columns) + f" | {per_minute:,.0f} |", flush=True)
    return per_minute


def timed(fitter: ManoFitter, observed: Observed) -> tuple[Fits, float]:
    start = time.process_time()
    fits = fitter.fit(observed)
    return fits, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hands", type=int, default=1000)
    parser.add_argument("--peer-hands", type=int, default=16)
    parser.add_argument("--seed", type=int, default=41)
    given = parser.parse_args()
    torch.set_num_threads(1)
    truth, rng = make_truth(given.hands, given.seed), np.random.default_rng(given.seed)
    fitter = ManoFitter(load_hand_model(default_hand_path("right")))
    noise_m = rng.normal(0, 0.005, truth.joints_m.shape)
    box_px = np.ptp(truth.joints_px, axis=1).max(1)[:, None, None]
    noise_px = 0.015 * box_px * rng.standard_normal(truth.joints_px.shape)
    seen, unseen = np.ones(truth.joints_m.shape[:2]), np.zeros(truth.joints_m.shape[:2])

    def observed(noise_m: float | np.ndarray, in_3d: np.ndarray, noise_px: float | np.ndarray, in_2d: np.ndarray):
        noisy = truth.joints_m + noise_m, in_3d, truth.joints_px + noise_px, in_2d
        return Observed(*noisy, truth.K_px, *no_relative(len(in_3d)))

    observations = {
        "3D, exact": observed(0.0, seen, 0.0, unseen),
        "3D, 5 mm noise per axis": observed(noise_m, seen, 0.0, unseen),
        "2D, exact": observed(0.0, unseen, 0.0, seen),
        "2D, 1.5 % of the box noise": observed(0.0, unseen, noise_px, seen),
    }
    print(f"{given.hands} hands; mean and largest over hands")
    print("| from | joints mm | max | vertices mm | max | px | max | PA joints mm | hands/min on one core |")
    print("|---|---|---|---|---|---|---|---|---|")
    speeds = {}
    for name, given_hands in observations.items():
        fits, seconds = timed(fitter, given_hands)
        speeds[name] = report(name, seconds, *mesh(fits.pose_aa, fits.betas, fits.transl_cam_m), truth)
    start = time.process_time()
    joints, vertices = zip(*(one_by_one(hand) for hand in truth.joints_m[: given.peer_hands]), strict=True)
    peer = report(
        f"3D, exact: L-BFGS one by one, {given.peer_hands} hands",
        time.process_time() - start,
        np.stack(joints),
        np.stack(vertices),
        truth,
    )
    ours = speeds["3D, exact"]
    print(f"from 3D: {ours / peer:,.0f} times as fast, {ours / WANTED_PER_MINUTE:.1f} times the wanted speed")


if __name__ == "__main__":
    main()
