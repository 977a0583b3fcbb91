"""A synthetic data set in FreiHAND v2's published layout, so that one adapter reads both.

    training/rgb/%08d.jpg    1 to 4 versions of each hand, at id + count * k
    training/mask/%08d.jpg   ids below count
    training_{K,mano,scale,verts,xyz}.json
    evaluation/rgb/%08d.jpg, evaluation_{K,mano,scale,verts,xyz}.json
    mocap.npz                hand_pose (N, 48) absolute axis-angle, betas (N, 10), without pictures
    synth.json               written last: what was asked for, and the hand model's digest

The versions show the same hand before different backgrounds, as FreiHAND's four recolourings do.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from maskhand.hand.anatomy import to_axis_angle
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.synth.pose_prior import sample_poses
from maskhand.synth.scene import (
    HandLabels,
    Studio,
    mask_jpeg,
    open_studio,
    photograph,
    random_streams,
    render_foreground,
    sample_labels,
)
from maskhand.synth.view import sample_betas

FORMAT_VERSION = 2
"""Raise it when the pictures or labels of a seed change."""
BACKGROUNDS: tuple[str | None, ...] = (None, "backdrop", None, None)
"""Of the versions; FreiHAND was recorded before a green screen, so one of them is a plain backdrop."""
FIELDS = ("K", "mano", "scale", "verts", "xyz")
CHUNK = 20
MOCAP_CHUNK = 1000
MIDDLE_MCP, MIDDLE_PIP = 9, 10
PARTS = ".parts"

Progress = Callable[[int, int], None]
"""Called with (unique hands done, unique hands in all)."""


class SynthError(ValueError):
    """A request that contradicts what the folder already holds."""


@dataclass(frozen=True)
class _Chunk:
    root: Path
    split: str
    start: int
    stop: int
    count: int
    """Unique hands of the whole split; the stride between versions."""
    seed: int
    hand_path: Path
    versions: int

    @property
    def part(self) -> Path:
        return self.root / PARTS / f"{self.split}-{self.start:08d}.json"


def write_freihand_synth(
    root: Path,
    *,
    train: int,
    evaluation: int,
    mocap: int,
    seed: int,
    workers: int,
    versions: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write the data set below `root` and return `root`; `versions` pictures (1 to 4) of each training hand.

    The bytes depend on the counts, the seed and the hand model only, not on `workers`. An interrupted call is resumed
    by repeating it; a finished one returns at once. Raises SynthError when the folder holds another data set.
    """
    hand_path = default_hand_path("right")
    request = {
        "format": FORMAT_VERSION, "train": train, "evaluation": evaluation, "mocap": mocap, "seed": seed,
        "versions": versions, "hand_model": load_hand_model(hand_path).digest,
    }  # fmt: skip
    for name, count in (("train", train), ("evaluation", evaluation), ("mocap", mocap)):
        if count < 0:
            raise SynthError(f"{name}={count}: the number of hands cannot be negative.")
    if not 1 <= versions <= len(BACKGROUNDS):
        raise SynthError(f"versions={versions}: there can be 1 to {len(BACKGROUNDS)} pictures of a hand.")
    if _already_there(root, request):
        return root
    (root / PARTS).mkdir(parents=True, exist_ok=True)
    _write_atomic(root / PARTS / "request.json", json.dumps(request).encode())
    splits = {"training": train, "evaluation": evaluation}
    chunks = [
        _Chunk(root, split, start, min(start + CHUNK, count), count, seed, hand_path, versions)
        for split, count in splits.items()
        for start in range(0, count, CHUNK)
    ]
    for split in splits:
        (root / split / "rgb").mkdir(parents=True, exist_ok=True)
    (root / "training" / "mask").mkdir(exist_ok=True)
    _run(chunks, workers, progress)
    for split in splits:
        _merge(root, split, [c for c in chunks if c.split == split])
    _write_atomic(root / "mocap.npz", _mocap(mocap, seed))
    shutil.rmtree(root / PARTS)
    _write_atomic(root / "synth.json", (json.dumps(request, indent=1) + "\n").encode())
    return root


def _already_there(root: Path, request: dict[str, Any]) -> bool:
    for record in (root / "synth.json", root / PARTS / "request.json"):
        if not record.is_file():
            continue
        found = json.loads(record.read_text())
        if found != request:
            differs = ", ".join(
                f"{k}: {found.get(k)} there, {v} asked" for k, v in request.items() if found.get(k) != v
            )
            raise SynthError(
                f"{root} already holds another synthetic data set ({differs}); "
                "replace it with --rebuild, or choose another workspace"
            )
        return record.name == "synth.json"
    return False


def _run(chunks: list[_Chunk], workers: int, progress: Progress | None) -> None:
    total = sum(c.stop - c.start for c in chunks)
    missing = [c for c in chunks if not c.part.is_file()]
    done = total - sum(c.stop - c.start for c in missing)

    def advance(chunk: _Chunk) -> None:
        nonlocal done
        done += chunk.stop - chunk.start
        if progress:
            progress(done, total)

    if workers <= 1 or len(missing) <= 1:
        for chunk in missing:
            _render_chunk(chunk)
            advance(chunk)
        return
    # spawn: a forked copy of a process that runs torch threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        pending: dict[Future[None], _Chunk] = {pool.submit(_render_chunk, c): c for c in missing}
        try:
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    chunk = pending.pop(future)
                    future.result()
                    advance(chunk)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _render_chunk(chunk: _Chunk) -> None:
    """Write the pictures of some hands, then their labels as one part file."""
    studio = open_studio(chunk.hand_path)
    with _one_thread():
        rows = [_write_hand(studio, chunk, index) for index in range(chunk.start, chunk.stop)]
    _write_atomic(chunk.part, json.dumps(rows).encode())


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per process: sums in the same order everywhere, and no contention between workers."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)


def _write_hand(studio: Studio, chunk: _Chunk, index: int) -> dict[str, Any]:
    pose_rng, look_rng, *version_rngs = random_streams(chunk.seed, chunk.split, index, 2 + chunk.versions)
    labels = sample_labels(studio, pose_rng)
    foreground = render_foreground(studio, labels, look_rng)
    pictures = chunk.root / chunk.split / "rgb"
    if chunk.split == "training":
        for k, (rng, kind) in enumerate(zip(version_rngs, BACKGROUNDS, strict=False)):
            _write_atomic(pictures / f"{index + k * chunk.count:08d}.jpg", photograph(foreground, rng, kind))
        _write_atomic(chunk.root / "training" / "mask" / f"{index:08d}.jpg", mask_jpeg(foreground))
    else:
        _write_atomic(pictures / f"{index:08d}.jpg", photograph(foreground, version_rngs[0]))
    return annotation(labels, studio.hands_mean_aa)


def annotation(labels: HandLabels, hands_mean_aa: NDArray[np.float64]) -> dict[str, Any]:
    """FreiHAND's label fields of one hand: K (3, 3), mano (1, 61), scale, verts (778, 3), xyz (21, 3).

    mano holds 48 pose (relative to the mean pose), 10 betas, 2 uv_root, 1 scale, from which FreiHAND's tools recover
    joint 9 at [(u - cx), (v - cy), f] / scale (lmb-freiburg/freihand, utils/model.py).
    """
    K, joints = labels.K_px, labels.joints_cam_m
    focal = (K[0, 0] + K[1, 1]) / 2
    scale = focal / joints[MIDDLE_MCP, 2]
    uv_root = joints[MIDDLE_MCP, :2] * scale + K[:2, 2]
    stored = labels.pose_aa.copy()
    stored[1:] -= hands_mean_aa
    return {
        "K": _rounded(K),
        "mano": [_rounded(np.concatenate([stored.reshape(-1), labels.betas, uv_root, [scale]]))],
        "scale": _rounded(np.linalg.norm(joints[MIDDLE_MCP] - joints[MIDDLE_PIP])),
        "verts": _rounded(labels.vertices_cam_m),
        "xyz": _rounded(joints),
    }


def _rounded(values: NDArray[np.floating] | np.floating) -> Any:
    """Lists of numbers with a tenth of a micrometre; a full double says nothing more and takes twice the space."""
    return np.round(values, 7).tolist()


def _merge(root: Path, split: str, chunks: list[_Chunk]) -> None:
    rows = [row for chunk in chunks for row in json.loads(chunk.part.read_text())]
    for field in FIELDS:
        _write_atomic(root / f"{split}_{field}.json", json.dumps([row[field] for row in rows]).encode())


def _mocap(count: int, seed: int) -> bytes:
    """Poses without pictures, as HaMeR's freihand_mocap.npz; from random streams no picture uses."""
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


def _write_atomic(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
