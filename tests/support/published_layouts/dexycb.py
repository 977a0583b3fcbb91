"""DexYCB as published: ten subjects with a hundred sequences of eight cameras, calibration apart in YAML."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, PosedHand, Truth, model, pose_hand, write_large_image

SIZE = (640, 480)
TIPS = {
    "right": {"thumb": 745, "index": 317, "middle": 444, "ring": 556, "little": 673},
    "left": {"thumb": 745, "index": 317, "middle": 445, "ring": 556, "little": 673},
}
"""manopth's."""
DATES = [
    "20200709",
    "20200813",
    "20200820",
    "20200903",
    "20200908",
    "20200918",
    "20200928",
    "20201002",
    "20201015",
    "20201022",
]
SERIALS = [
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
]
INSIDE: dict[str, tuple[int, list[int], list[int]]] = {
    "s0_train": (3, list(range(8)), [0, 98]),
    "s0_val": (1, list(range(8)), [4, 99]),
    "s0_test": (2, list(range(8)), [9, 54]),
    "s1_train": (9, list(range(8)), [4, 50]),
    "s1_val": (6, list(range(8)), [0, 99]),
    "s1_test": (8, list(range(8)), [4, 7]),
    "s2_train": (0, [0, 1, 2, 3, 4, 5], [4, 61]),
    "s2_val": (5, [6], [0, 99]),
    "s2_test": (7, [7], [15, 16]),
    "s3_train": (4, list(range(8)), [14, 64]),
    "s3_val": (6, list(range(8)), [15, 99]),
    "s3_test": (2, list(range(8)), [35, 59]),
}
"""A subject, the cameras, and two sequences of each split, written down from the paper's description of the splits."""
OUTSIDE = {"s0_train": 4, "s0_val": 3, "s0_test": 8, "s3_train": 15, "s3_val": 14, "s3_test": 34}
"""A sequence of the same subject that the split leaves out."""
LEFT_SIGNS = (-1, 1, 1)
"""The official left model as it is, with a wrong sign in x."""


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> Fixture:
    """A right and a left sequence of one subject; one image of the second shows no hand."""
    rng = np.random.default_rng(seed)
    subject, cameras, sequences = INSIDE[split]
    name = f"{DATES[subject]}-subject-{subject + 1:02d}"
    frames = -(-count // (2 * len(cameras))) + (1 if len(cameras) == 1 else 0)
    truths: dict[str, Truth] = {}
    rejects: dict[str, str] = {}
    labels: list[Path] = []
    intrinsics = _write_calibration(folder, rng)
    betas = {side: _write_betas(folder, rng, f"{name}_{side}") for side in ("right", "left")}
    filled = [*sequences, *([OUTSIDE[split]] if split in OUTSIDE else [])]
    for k in range(100):
        stamp = f"{DATES[subject]}_{140000 + k:06d}"
        side = ("right", "left")[filled.index(k) % 2] if k in filled else "right"
        home = folder / name / stamp
        home.mkdir(parents=True)
        _write_meta(home, frames if k in filled else 0, side, f"{name}_{side}")
        if k not in filled:
            continue
        for c, serial in enumerate(SERIALS):
            for frame in range(frames):
                image = home / serial / f"color_{frame:06d}.jpg"
                write_large_image(image, frame + c, SIZE)
                hand = _hand(rng, side, betas[side])
                empty = k == sequences[1] and c == cameras[0] and frame == 0
                joints, path = _write_label(home / serial, frame, hand, intrinsics[c], empty), image
                key = f"{split}-{subject + 1:02d}-{stamp}-{serial}-{frame:06d}"
                if k not in sequences or c not in cameras:
                    continue
                if empty:
                    rejects[key] = "no_hand"
                    continue
                labels.append(home / serial / f"labels_{frame:06d}.npz")
                truths[key] = Truth(
                    side, intrinsics[c], joints, np.ones(21, bool), hand.vertices_m, path, mano=side == "right"
                )

    def damage_joints(position: int, value: Any) -> None:
        edit_label(labels[position], {"joint_3d": np.array(value, np.float32)[None, :21]})

    return Fixture(
        folder,
        truths,
        labels[-1],
        damage_joints,
        rejects,
        file_per_sample=True,
        other_splits=frozenset(INSIDE) - {split},
    )


def edit_label(path: Path, changes: dict[str, np.ndarray], remove: tuple[str, ...] = ()) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if name not in remove})
    path.write_bytes(buffer.getvalue())


def _hand(rng: np.random.Generator, side: str, betas: np.ndarray) -> PosedHand:
    place = np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.6, 0.9)])
    signs = LEFT_SIGNS if side == "left" else (1, 1, 1)
    return pose_hand(side, rng.normal(0, 1, 3), rng.normal(0, 0.3, 45), betas, place, signs)


def _write_label(home: Path, frame: int, hand: PosedHand, K: np.ndarray, empty: bool) -> np.ndarray:
    """labels_*.npz; gives the 21 joints."""
    joints = np.stack(list(hand.named(TIPS[hand.side]).values()))
    uvw = joints @ K.T
    official = model(hand.side)
    # PCA with all 45 components around the mean pose: pose = mean + coefficients @ components.
    coefficients = np.linalg.solve(official.hands_components.T, (hand.fingers_aa - official.hands_mean_aa).ravel())
    pose = np.concatenate([hand.global_aa, coefficients, hand.transl_m])
    stored = {
        "pose_m": np.zeros((1, 51)) if empty else pose[None],
        "joint_3d": np.full((1, 21, 3), -1.0) if empty else joints[None],
        "joint_2d": np.full((1, 21, 2), -1.0) if empty else (uvw[:, :2] / uvw[:, 2:])[None],
        "pose_y": np.zeros((4, 3, 4)),
    }
    arrays: dict[str, Any] = {field: values.astype(np.float32) for field, values in stored.items()}
    arrays["seg"] = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    np.savez_compressed(home / f"labels_{frame:06d}.npz", **arrays)
    return joints


def _write_meta(home: Path, frames: int, side: str, calibration: str) -> None:
    text = "serials:\n" + "".join(f"- '{serial}'\n" for serial in SERIALS) + f"num_frames: {frames}\n"
    text += f"extrinsics: 20200702_151821\nmano_calib:\n- {calibration}\nmano_sides:\n- {side}\n"
    (home / "meta.yml").write_text(text + "ycb_ids:\n- 1\n- 11\n- 12\n- 20\nycb_grasp_ind: 0\n")


def _write_calibration(folder: Path, rng: np.random.Generator) -> list[np.ndarray]:
    matrices = []
    for serial in SERIALS:
        fx, fy, ppx, ppy = rng.uniform([610, 610, 305, 235], [620, 620, 325, 250]).tolist()
        text = f"color:\n  fx: {fx}\n  fy: {fy}\n  ppx: {ppx}\n  ppy: {ppy}\n"
        text += "depth:\n  fx: 596.8\n  fy: 596.8\n  ppx: 320.3\n  ppy: 237.6\n"
        path = folder / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "extrinsics: !!python/tuple\n- 0.99998\n- 0.0018\n- -0.006\n- 0.0149\n")
        matrices.append(np.array([[fx, 0, ppx], [0, fy, ppy], [0, 0, 1]]))
    return matrices


def _write_betas(folder: Path, rng: np.random.Generator, calibration: str) -> np.ndarray:
    betas = rng.normal(0, 0.7, 10)
    path = folder / "calibration" / f"mano_{calibration}" / "mano.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"betas: {json.dumps(betas.tolist())}\n")
    return betas
