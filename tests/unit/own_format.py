"""A benchmark's official format from outside of maskhand: wrists in a CSV file, a line per image."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from maskhand.scoring.format import Format, GroundTruth
from maskhand.scoring.predictions import Layout, Predictions
from maskhand.scoring.scores import Scores, count_warning


def score(labels: GroundTruth, pred: Path) -> Scores:
    true, guess = (np.loadtxt(path, delimiter=",", ndmin=2) for path in (labels.path, pred))
    error_mm = 1e3 * np.linalg.norm(true - guess, axis=1)
    return Scores(
        benchmark="wrists",
        metrics={"wrist_mm": float(error_mm.mean())},
        counts={"samples": len(true)},
        per_joint={"wrist_mm": error_mm.mean(keepdims=True)},
        joints=("wrist",),
        warnings=count_warning(len(true), labels.official),
    )


def write(predictions: Predictions, layout: Layout) -> dict[str, bytes]:
    stream = io.StringIO()
    joints = layout.in_official_order(predictions, layout.joints(predictions.joints_cam_m))
    csv.writer(stream, lineterminator="\n").writerows(joints[:, 0].tolist())
    return {"wrists.csv": stream.getvalue().encode()}


WRISTS = Format(score, write)
