"""The hands of the synthetic set, rendered in chunks by several processes: images, masks, FreiHAND's labels.

A chunk is finished when its part file exists; the same bytes come out of any number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from maskhand.progress import Progress
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

BACKGROUNDS: tuple[str | None, ...] = (None, "backdrop", None, None)
"""Backgrounds of the versions; FreiHAND was recorded before a green screen, so one of them is a plain backdrop."""
MIDDLE_MCP, MIDDLE_PIP = 9, 10
PARTS = ".parts"
"""Folder of the part files, removed when the set is whole."""

"""Called with (unique hands done, unique hands in all)."""


@dataclass(frozen=True)
class Chunk:
    """Hands start..stop-1 of a split."""

    root: Path
    split: str
    start: int
    stop: int
    count: int
    """Unique hands of the whole split; the stride between versions."""
    seed: int
    hand_path: Path
    versions: int
    second_hand: float
    """Probability that a training hand has a second hand beside it."""

    @property
    def part(self) -> Path:
        return self.root / PARTS / f"{self.split}-{self.start:08d}.json"


def render(chunks: list[Chunk], workers: int, progress: Progress) -> None:
    """Write images and part files of all hands, in `workers` processes; finished chunks are not rendered again."""
    total = sum(c.stop - c.start for c in chunks)
    missing = [c for c in chunks if not c.part.is_file()]
    done = total - sum(c.stop - c.start for c in missing)

    def advance(chunk: Chunk) -> None:
        nonlocal done
        done += chunk.stop - chunk.start
        progress(done, total, f"{done} hands")

    if workers <= 1 or len(missing) <= 1:
        for chunk in missing:
            _render_chunk(chunk)
            advance(chunk)
        return
    # spawn: a forked copy of a process that runs torch threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=context) as pool:
        pending: dict[Future[None], Chunk] = {pool.submit(_render_chunk, c): c for c in missing}
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


def _render_chunk(chunk: Chunk) -> None:
    """Write the images of some hands, then their labels as one part file."""
    studio = open_studio(chunk.hand_path)
    with _one_thread():
        rows = [_write_hand(studio, chunk, index) for index in range(chunk.start, chunk.stop)]
    write_whole(chunk.part, json.dumps(rows).encode())


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


def _write_hand(studio: Studio, chunk: Chunk, index: int) -> dict[str, Any]:
    pose_rng, look_rng, *version_rngs, second_rng = random_streams(chunk.seed, chunk.split, index, 3 + chunk.versions)
    labels = sample_labels(studio, pose_rng)
    with_second = chunk.split == "training" and second_rng.random() < chunk.second_hand
    foreground = render_foreground(studio, labels, look_rng, second_rng=second_rng if with_second else None)
    images = chunk.root / chunk.split / "rgb"
    if chunk.split == "training":
        for k, (rng, kind) in enumerate(zip(version_rngs, BACKGROUNDS, strict=False)):
            write_whole(images / f"{index + k * chunk.count:08d}.jpg", photograph(foreground, rng, kind))
        write_whole(chunk.root / "training" / "mask" / f"{index:08d}.jpg", mask_jpeg(foreground))
    else:
        write_whole(images / f"{index:08d}.jpg", photograph(foreground, version_rngs[0]))
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
    """Lists of numbers with a tenth of a micrometer; a full double says nothing more and takes twice the space."""
    return np.round(values, 7).tolist()


def write_whole(path: Path, data: bytes) -> None:
    """Readers see the whole file or none; unlike `storage` without waiting for the disk, for thousands of images."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
