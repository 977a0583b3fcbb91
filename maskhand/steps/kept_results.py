"""What evaluations and trainings left beside their summaries, hand by hand and step by step, read again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from maskhand import storage
from maskhand.comparison.records import PER_HAND, Curve, PlacedJoints
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.array_archive import UnreadableArchiveError, read_array_archive
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError
from maskhand.kept_json import KeptFileError, read_steps

CURVES = ("train/", "val/")
_AGAIN = "measure the model again with `maskhand evaluate`"
_MOST_BYTES = 1 << 32
_TEXTS = ("key", "side", "failure")


def hands_of(uri: str, predictor: str, *columns: str) -> pd.DataFrame:
    """The rows of one predictor in a samples.parquet, with these columns and any others. Raises KeptFileError."""
    data = storage.read_bytes(uri)
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow's, of many kinds
        reason = " ".join(str(error).split())[:100]
        raise KeptFileError(f"{uri}: no Parquet file of {len(data)} bytes ({reason}); {_AGAIN}") from None
    if missing := [name for name in ("predictor", *columns) if name not in table]:
        raise KeptFileError(f"{uri}: no column {', '.join(missing[:3])}; it was written by another version, {_AGAIN}")
    numbers = [name for name in dict.fromkeys((*columns, *PER_HAND)) if name in table and name not in _TEXTS]
    if wrong := [name for name in numbers if table[name].dtype.kind not in "biuf"]:
        raise KeptFileError(f"{uri}: {wrong[0]} holds {table[wrong[0]].iloc[:1].tolist()}, expected numbers; {_AGAIN}")
    rows = table[table.predictor == predictor]
    if "key" in columns and rows["key"].duplicated().any():
        twice = rows["key"][rows["key"].duplicated()].iloc[0]
        raise KeptFileError(f"{uri}: hand {twice} is there twice for {predictor}, expected a row for each; {_AGAIN}")
    return rows


def joints_of(uri: str) -> PlacedJoints:
    """The joints in a joints.npz. Raises KeptFileError."""
    try:
        arrays = read_array_archive(storage.read_bytes(uri), uri, ("index", "joints_px"), _MOST_BYTES)
    except (UnreadableArchiveError, UnreadablePickleError, UnsafePickleError) as error:
        raise KeptFileError(f"{error}; {_AGAIN}") from None
    index, joints_px = (arrays.get(name, np.empty(0)) for name in ("index", "joints_px"))
    if index.ndim != 1 or index.dtype.kind != "i" or joints_px.shape != (len(index), NUM_JOINTS, 2):
        raise KeptFileError(
            f"{uri}: index has shape {index.shape} and joints_px {joints_px.shape}, expected (N,) whole numbers and "
            f"(N, {NUM_JOINTS}, 2); {_AGAIN}"
        )
    return PlacedJoints(index, joints_px)


def curves_of(metrics_jsonl: Path) -> dict[str, Curve]:
    """Metric -> its values by step, of a training; none where there is no file. Raises KeptFileError."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_steps(metrics_jsonl):
        for name, value in row.items():
            if name.startswith(CURVES):
                curves.setdefault(name, []).append((int(row["step"]), value))
    return dict(curves)
