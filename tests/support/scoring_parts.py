"""Predictions and ground truth in the official formats, small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


def hands(count: int, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and predictions, meters: near, far, mirrored, a single point, all zero, and one exactly right."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(points, 3)) * (0.05, 0.03, 0.015)
    truth = (shape + rng.normal(size=(count, points, 3)) * 0.004) @ Rotation.random(
        count, random_state=seed
    ).as_matrix()
    truth += rng.normal(size=(count, 1, 3)) * 0.1 + (0, 0, 0.7)
    guess = truth + rng.normal(size=truth.shape) * 0.004 + rng.normal(size=(count, 1, 3)) * 0.006
    guess[1] *= (-1, 1, 1)
    guess[2] = truth[2].mean(0)
    guess[3] = 0
    guess[4] = truth[4]
    guess[5] = 1.3 * truth[5] @ Rotation.random(random_state=1).as_matrix() + 0.2
    guess[6] = truth[6] * (1, 1, 0)
    return truth, guess


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value))


def interhand_files(folder: Path, count: int = 40):
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(count, 42, 3)) * 60 + (0, 0, 900)
    guess = truth + rng.normal(size=truth.shape) * 8 + rng.normal(size=(count, 1, 3)) * 50
    valid = rng.random((count, 42)) < 0.8
    valid[:20, [20, 41]] = True
    hand_type = rng.choice(["right", "left", "interacting"], count)
    np.savez(folder / "gt.npz", joint_cam_mm=truth, joint_valid=valid.astype(np.float32), hand_type=hand_type)
    np.savez_compressed(folder / "pred.npz", joint_cam_mm=guess)
    return truth, valid, hand_type, guess


def hint_files(folder: Path, count: int = 30, columns: int = 2):
    rng = np.random.default_rng(4)
    target = rng.uniform(0, 500, (count, 21, 2))
    scale = rng.uniform(80, 200, (count, columns)).astype(np.float32)
    guess = target + rng.normal(size=target.shape) * 9
    guess[5, 3] = np.nan
    occluded, annotated = rng.random((count, 21)) < 0.3, rng.random((count, 21)) < 0.9
    confidence = {"all": annotated, "vis": annotated & ~occluded, "occ": annotated & occluded}
    extra = np.array([{} for _ in range(count)], dtype=object)
    for state, seen in confidence.items():
        points = np.concatenate([target, seen[..., None]], axis=-1)
        values = {"scale": scale if columns > 1 else scale[:, 0], "center": target[:, 0], "extra_info": extra}
        np.savez(folder / f"TEST_newdays_img_{state}.npz", hand_keypoints_2d=points, **values)
    np.savez(folder / "pred.npz", keypoints_2d_px=guess)
    return guess, target, confidence, scale
