"""The rows of a run as a Parquet table: nested fields get joined names, nested lists are flattened."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskhand.conventions import OPENPOSE_21
from maskhand.predict.rows import SCHEMA, Row

TEXT, WHOLE, NUMBER, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
NUMBERS, WHOLES, SINGLES = pa.list_(pa.float64()), pa.list_(pa.int64()), pa.list_(pa.float32())
COLUMNS: Final[dict[str, pa.DataType]] = {
    "schema": TEXT, "picture": TEXT, "name": TEXT, "frame": WHOLE, "time_s": NUMBER, "image_size_px": WHOLES,
    "status": TEXT, "reason": TEXT, "hand": WHOLE, "track": WHOLE, "seen": FLAG, "side": TEXT, "guess": FLAG,
    "box_xyxy_px": NUMBERS, "detection_score": NUMBER, "log_probability": NUMBER,
    "token_confidence_of_joints": NUMBERS, "tokens": WHOLES, "token_confidence": NUMBERS,
    "mano_side": TEXT, "mano_flat_hand_mean": FLAG, "mano_global_orient": NUMBERS, "mano_hand_pose": NUMBERS,
    "mano_betas": NUMBERS, "mano_transl_cam_m": NUMBERS, "camera_K_px": NUMBERS, "camera_source": TEXT,
    "camera_crop": NUMBERS, "camera_crop_focal": NUMBER, "camera_crop_from_image": NUMBERS,
    "camera_crop_is_mirrored": FLAG, "joints_cam_m": NUMBERS, "joints_px": NUMBERS, "p_within_10mm": NUMBERS,
    "joint_error_mm": NUMBERS, "keypoints_px": NUMBERS, "keypoints_confidence": NUMBERS,
    "body_hand_body": TEXT, "body_hand_argument": TEXT, "body_hand_hand_pose": NUMBERS,
    "body_hand_flat_hand_mean": FLAG, "body_hand_use_pca": FLAG, "body_hand_num_pca_comps": WHOLE,
    "body_hand_wrist_global_orient": NUMBERS, "vertices_cam_m": SINGLES,
    "joint_spread_mm": NUMBERS, "hypotheses": TEXT, "modes": TEXT, "method": TEXT,
    "model_digest": TEXT, "model_recipe": TEXT, "hand_model": TEXT, "keypoint_detector": TEXT,
}  # fmt: skip
"""Columns of the table: field names joined by `_`, nested lists flattened row-major, hypotheses and modes as JSON."""
ROWS_AT_ONCE: Final = 1024


def write_parquet(rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write the rows as a table with `COLUMNS`, in groups of `ROWS_AT_ONCE`."""
    schema = pa.schema(list(COLUMNS.items()), {"maskhand.schema": SCHEMA, "joint_names": json.dumps(OPENPOSE_21)})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting: list[Row] = []
        for row in rows:
            waiting.append(flat(row))
            if len(waiting) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema))


def flat(row: Row) -> Row:
    """The row flattened to the fields of `COLUMNS`; fields that it lacks are left out."""
    found: Row = {}
    for name, value in row.items():
        if name in ("mano", "camera", "model", "body_hand") and isinstance(value, dict):
            found |= {f"{name}_{inner}": _flat_list(v) for inner, v in value.items()}
        elif name in ("hypotheses", "modes"):
            found[name] = json.dumps(value)
        else:
            found[name] = _flat_list(value)
    return {name: value for name, value in found.items() if name in COLUMNS}


def _flat_list(value: Any) -> Any:
    if isinstance(value, dict):
        return [float(v) for v in value.values()]
    return np.asarray(value).ravel().tolist() if isinstance(value, list) else value
