"""A JSON list with a table per sample, read row by row.

The meshes of HO-3D's evaluation set are one file of a gigabyte: parsed at once it would stand in memory as 50 million
Python numbers. Here the text passes through in pieces and each row becomes a float32 array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand.adapters.readers.json_stream import open_json


@dataclass(frozen=True)
class JsonRows:
    rows: list[Any]
    """A float32 array per sample; what is not a table of numbers stays as it was read, to be rejected as a sample."""
    sha256: str


def read_json_rows(uri: str) -> JsonRows:
    """Rows of a file `[row, row, ...]`; RawDataError when it is cut or something else."""
    with open_json(uri) as cursor:
        rows = [_as_array(row) for row in cursor.values()]
    return JsonRows(rows, cursor.sha256)


def _as_array(row: Any) -> Any:
    try:
        return np.asarray(row, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return row
