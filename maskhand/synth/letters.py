"""A synthetic ASL alphabet in Kaggle's published layout: 26 letters before a camera, each hand a little different.

    asl_alphabet_train/asl_alphabet_train/{A..Z}/{A..Z}{1..N}.jpg
    poses.npz      beside them: path (M,), pose_aa (M, 16, 3), betas (M, 10), transl_cam_m (M, 3) of what was rendered
    letters.json   written last: the request

The published set annotates nothing but the letter, and so does this one; poses.npz stands for the pseudo ground truth
that MaskHand's predictions are on the published set.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import string
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand import storage
from maskhand.arrays import Array64
from maskhand.hand.anatomy import pose_table, respect_limits, to_axis_angle
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.kept_json import read_kept
from maskhand.progress import Progress, silent
from maskhand.synth.collisions import overlap_m
from maskhand.synth.freihand_layout import SynthError
from maskhand.synth.pose_prior import MAX_OVERLAP_M, jitter
from maskhand.synth.scene import HandLabels, open_studio, photograph, pose_hand, random_streams, render_foreground
from maskhand.synth.view import sample_betas

FORMAT_VERSION = 1
"""Raise it when the images or poses of a seed change."""
FOLDER = "asl_alphabet_train/asl_alphabet_train"
POSES, RECORD = "poses.npz", "letters.json"

SHAPE_OF = {"J": "I", "Z": "point"}
"""Letters that are drawn in the air -> the still hand that draws them."""
UPRIGHT = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Rest frame -> camera axes: fingers up, palm to the viewer, the right hand's thumb at the image's right."""
TURN_DEG = {"G": -80.0, "H": -80.0, "P": -150.0, "Q": -150.0}
"""In the image plane: G and H point to the side, P and Q down."""
ORIENTATION_STD_DEG, POSE_STD_DEG = 9.0, 3.0
DRAWN_AT_ONCE = 4


def write_letters(root: Path, *, per_letter: int, seed: int, workers: int, progress: Progress = silent) -> Path:
    """Write the set below `root` and return `root`; at once when it is there, SynthError when another one is.

    The bytes depend on the numbers, the seed and the hand model only.
    """
    if per_letter < 1:
        raise SynthError(f"per_letter={per_letter}: at least 1 image of each letter is needed.")
    hand_path = default_hand_path("right")
    request = {"format": FORMAT_VERSION, "per_letter": per_letter, "seed": seed,
               "hand_model": load_hand_model(hand_path).digest}  # fmt: skip
    record = root / RECORD
    if record.is_file():
        if read_kept(record, "use --rebuild") != request:
            raise SynthError(f"{root} already has other synthetic letters; use --rebuild, or delete the folder.")
        return root
    render = functools.partial(_write_letter, root, hand_path, per_letter, seed)
    letters, rows = string.ascii_uppercase, []
    # spawn: a forked copy of a process that runs torch threads can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, of_letter in enumerate(pool.map(render, letters), 1):
            rows += of_letter
            progress(done * per_letter, len(letters) * per_letter, f"{done * per_letter} letters")
    stream = io.BytesIO()
    columns: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(stream, **columns)
    storage.write_bytes_atomic(root / POSES, stream.getvalue())
    storage.write_json_atomic(record, request)
    return root


def letter_pose(letter: str, rng: np.random.Generator) -> Array64:
    """(16, 3) axis-angle of one hand that shows a letter: within the joint limits, without fingers that overlap."""
    shape = pose_table().shape(SHAPE_OF.get(letter, letter))
    while True:
        angles = respect_limits(shape + jitter(rng, DRAWN_AT_ONCE, np.full((DRAWN_AT_ONCE, 1, 1), POSE_STD_DEG)))
        poses = to_axis_angle(angles)
        rotations = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 16, 3, 3)
        free = np.flatnonzero(overlap_m(rotations) < MAX_OVERLAP_M)
        if len(free):
            break
    in_plane = Rotation.from_euler("z", TURN_DEG.get(letter, 0.0), degrees=True)
    tilt = Rotation.from_rotvec(np.deg2rad(rng.normal(0, ORIENTATION_STD_DEG, 3)))
    pose = poses[free[0]]
    pose[0] = (tilt * in_plane * Rotation.from_matrix(UPRIGHT)).as_rotvec()
    return np.asarray(pose)


def _write_letter(root: Path, hand_path: Path, count: int, seed: int, letter: str) -> list[dict[str, Any]]:
    """Render the images of one letter (in a worker); what was rendered."""
    torch.set_num_threads(1)
    studio, place = open_studio(hand_path), string.ascii_uppercase.index(letter)
    rows = []
    for number in range(1, count + 1):
        pose_rng, look_rng, photo_rng = random_streams(seed, "letters", place * 100_000 + number, 3)
        labels = pose_hand(studio, letter_pose(letter, pose_rng), sample_betas(pose_rng), pose_rng)
        foreground = render_foreground(studio, labels, look_rng, empty_handed=True)
        path = f"{letter}/{letter}{number}.jpg"
        storage.write_bytes_atomic(root / FOLDER / path, photograph(foreground, photo_rng))
        rows.append({"path": np.array(path), **_parameters(labels, hand_path)})
    return rows


def _parameters(labels: HandLabels, hand_path: Path) -> dict[str, Array64]:
    """MANO parameters whose mesh is the one that was rendered."""
    layer = open_studio(hand_path).layer
    pose, betas = (torch.from_numpy(x[None]).float() for x in (labels.pose_aa, labels.betas))
    with torch.no_grad():
        at_origin = layer.from_axis_angle(pose, betas, torch.zeros(1, 3)).vertices_m[0, 0].double().numpy()
    return {"pose_aa": labels.pose_aa, "betas": labels.betas, "transl_cam_m": labels.vertices_cam_m[0] - at_origin}
