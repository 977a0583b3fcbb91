"""The step behind `maskhand score`: prediction files against published ground truth, with the catalog's counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskhand import storage

if TYPE_CHECKING:
    from maskhand.catalog import BenchmarkFormat
    from maskhand.evaluation.scoring.scores import Scores

Array = np.ndarray

_FRAMES_AT_ONCE = 1024


def score(benchmark: BenchmarkFormat, gt: Path, pred: Path, split: str = "s0_test") -> Scores:
    """The official numbers of a prediction file; `split` says which frames of a dataset's own folder are the truth.

    Raises ScoreError, or RawDataError for a dataset's folder that cannot be read.
    """
    from maskhand.catalog import official_counts
    from maskhand.evaluation.scoring import benchmarks

    from_folder = TRUTH_FROM_FOLDER.get(benchmark) if gt.is_dir() else None
    truth = gt if from_folder is None else from_folder(gt, split)
    return benchmarks.score(benchmark, truth, pred, official_counts(benchmark))


def dexycb_truth(folder: Path, split: str) -> Iterator[tuple[Array, Array]]:
    """Pieces of image ids (n,) and joints (n, 21, 3) in meters as published, read from the dataset's own label files.

    Ids count the split's frames in the official order. Raises RawDataError when a subject of the split is absent, for
    then ids would mean other frames, and ScoreError when a label cannot be read.
    """
    from maskhand.adapters.base import RawDataError
    from maskhand.adapters.layouts.dexycb_index import Frame, read_index
    from maskhand.adapters.layouts.dexycb_splits import SELECTIONS
    from maskhand.adapters.readers.label_files import field, read_npz_fields
    from maskhand.evaluation.scoring.scores import ScoreError
    from maskhand.sample import SampleError

    if split not in SELECTIONS:
        raise ScoreError(f"DexYCB has no split {split!r}; its splits are {', '.join(SELECTIONS)}")
    index = read_index(str(folder), SELECTIONS[split])
    if index.absent_subjects:
        absent = ", ".join(f"{subject:02d}" for subject in index.absent_subjects)
        raise RawDataError(
            f"{folder}: subjects {absent} of {split} are absent, so image ids cannot be counted; "
            "unpack them, or give an .npz with image_id and joint_3d_m"
        )

    def joints_m(frame: Frame) -> Array:
        uri = storage.join(str(folder), frame.folder, f"labels_{frame.number:06d}.npz")
        try:
            joints = field(uri, read_npz_fields(uri, uri, ("joint_3d",)), "joint_3d")
        except SampleError as error:
            raise ScoreError(str(error)) from None
        if joints.shape != (1, 21, 3):
            raise ScoreError(f"{uri}: joint_3d has shape {joints.shape}, expected (1, 21, 3)")
        return joints[0]

    frames, first = iter(index), 0
    while piece := [joints_m(frame) for frame in islice(frames, _FRAMES_AT_ONCE)]:
        yield np.arange(first, first + len(piece)), np.stack(piece)
        first += len(piece)


TRUTH_FROM_FOLDER: Mapping[BenchmarkFormat, Callable[[Path, str], Iterator[tuple[Array, Array]]]] = {
    "dexycb": dexycb_truth
}
"""Benchmarks whose truth can also be read from the dataset's own folder, a split of it."""
