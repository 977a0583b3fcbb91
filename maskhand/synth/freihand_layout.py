"""A synthetic dataset in FreiHAND v2's published layout, so that one adapter reads both.

    training/rgb/%08d.jpg    1 to 4 versions of each hand, at id + count * k
    training/mask/%08d.jpg   ids below count
    training_{K,mano,scale,verts,xyz}.json
    evaluation/rgb/%08d.jpg, evaluation_{K,mano,scale,verts,xyz}.json
    mocap.npz                hand_pose (N, 48) absolute axis-angle, betas (N, 10), without images
    synth.json               written last: the request, and the hand model's digest

The versions show the same hand before different backgrounds, as FreiHAND's four recolorings do.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.errors import MaskhandError
from maskhand.hand.anatomy import to_axis_angle
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.kept_json import read_kept
from maskhand.progress import Progress, silent
from maskhand.synth.freihand_hands import BACKGROUNDS, PARTS, Chunk, render, write_whole
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.scene import random_streams
from maskhand.synth.view import sample_betas

FORMAT_VERSION = 2
"""Raise it when the images or labels of a seed change."""
FIELDS = ("K", "mano", "scale", "verts", "xyz")
CHUNK = 20
MOCAP_CHUNK = 1000


class SynthError(MaskhandError, ValueError):
    """A request that contradicts the dataset already in the folder."""


def write_freihand_synth(
    root: Path,
    *,
    train: int,
    evaluation: int,
    mocap: int,
    seed: int,
    workers: int,
    versions: int = 1,
    second_hand: float = 0.0,
    progress: Progress = silent,
) -> Path:
    """Write the dataset below `root` and return `root`; `versions` images (1 to 4) of each training hand, a share
    `second_hand` of them beside a left hand, which has no labels.

    The bytes depend on the counts, the seed and the hand model only, not on `workers`. An interrupted call is resumed
    by repeating it; a finished one returns at once. Raises SynthError when the folder has another dataset.
    """
    hand_path = default_hand_path("right")
    request = {
        "format": FORMAT_VERSION, "train": train, "evaluation": evaluation, "mocap": mocap, "seed": seed,
        "versions": versions, "hand_model": load_hand_model(hand_path).digest,
    }  # fmt: skip
    if second_hand:
        request["second_hand"] = second_hand
    for name, count in (("train", train), ("evaluation", evaluation), ("mocap", mocap)):
        if count < 0:
            raise SynthError(f"{name}={count}: the number of hands cannot be negative.")
    if not 0 <= second_hand <= 1:
        raise SynthError(f"second_hand={second_hand}: expected a share of the training hands, 0 to 1.")
    if not 1 <= versions <= len(BACKGROUNDS):
        raise SynthError(f"versions={versions}: there can be 1 to {len(BACKGROUNDS)} images of a hand.")
    if _already_there(root, request):
        return root
    (root / PARTS).mkdir(parents=True, exist_ok=True)
    write_whole(root / PARTS / "request.json", json.dumps(request).encode())
    splits = {"training": train, "evaluation": evaluation}
    chunks = [
        Chunk(root, split, start, min(start + CHUNK, count), count, seed, hand_path, versions, second_hand)
        for split, count in splits.items()
        for start in range(0, count, CHUNK)
    ]
    for split in splits:
        (root / split / "rgb").mkdir(parents=True, exist_ok=True)
    (root / "training" / "mask").mkdir(exist_ok=True)
    render(chunks, workers, progress)
    for split in splits:
        _merge(root, split, [c for c in chunks if c.split == split])
    write_whole(root / "mocap.npz", _mocap(mocap, seed))
    shutil.rmtree(root / PARTS)
    write_whole(root / "synth.json", (json.dumps(request, indent=1) + "\n").encode())
    return root


def _already_there(root: Path, request: dict[str, Any]) -> bool:
    for record in (root / "synth.json", root / PARTS / "request.json"):
        if not record.is_file():
            continue
        found = read_kept(record, "use --rebuild, or delete the folder")
        if found != request:
            differs = ", ".join(
                f"{k}: {found.get(k, 'none')} there, {request.get(k, 'none')} requested"
                for k in found | request
                if found.get(k) != request.get(k)
            )
            raise SynthError(
                f"{root} already has another synthetic dataset ({differs}); "
                "replace it with --rebuild, or choose another workspace"
            )
        return record.name == "synth.json"
    return False


def _merge(root: Path, split: str, chunks: list[Chunk]) -> None:
    rows = [row for chunk in chunks for row in json.loads(chunk.part.read_text())]
    for field in FIELDS:
        write_whole(root / f"{split}_{field}.json", json.dumps([row[field] for row in rows]).encode())


def _mocap(count: int, seed: int) -> bytes:
    """Poses without images, as HaMeR's freihand_mocap.npz; from random streams no image uses."""
    poses, betas = [np.zeros((0, 48))], [np.zeros((0, 10))]
    for chunk in range(-(-count // MOCAP_CHUNK)):
        (rng,) = random_streams(seed, "mocap", chunk, 1)
        pose = to_axis_angle(sample_poses(rng, MOCAP_CHUNK))
        pose[:, 0] = Rotation.random(MOCAP_CHUNK, random_state=rng).as_rotvec()
        poses.append(pose.reshape(-1, 48))
        betas.append(np.stack([sample_betas(rng) for _ in range(MOCAP_CHUNK)]))
    stream = io.BytesIO()
    np.savez(
        stream,
        hand_pose=np.concatenate(poses)[:count].astype(np.float32),
        betas=np.concatenate(betas)[:count].astype(np.float32),
    )
    return stream.getvalue()
