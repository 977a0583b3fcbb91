"""The parameters of a served model, and the table that it returns: the columns of hands.parquet, a row per hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from maskhand.models.bundle import ModelBundle
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.picture_hands import PictureOptions, predict_each
from maskhand.predict.records import PredictError
from maskhand.predict.rows import Row
from maskhand.predict.table import COLUMNS as TABLE
from maskhand.predict.table import flat

PARAMETERS: Final[dict[str, tuple[str, Any]]] = {
    "method": ("string", "model"),
    "vertices": ("boolean", False),
    "hypotheses": ("long", 0),
    "min_confidence": ("double", 0.0),
    "focal_px": ("double", None),
    "intrinsics": ("double", []),
    "box": ("double", []),
    "side": ("string", None),
    "camera": ("string", "keypoints"),
}
"""Parameter of a call -> its MLflow type and its default; list parameters hold numbers, and an empty list means unset.
They apply to all pictures of the call."""

_LEFT_OUT = ("name", "frame", "time_s", "track", "seen", "body_hand")
"""Prefixes of the columns that are left out: those of films and of body conventions, which are not parameters."""
COLUMNS: Final[dict[str, pa.DataType]] = {
    "input": pa.int64(),
    "error": pa.string(),
    **{name: kind for name, kind in TABLE.items() if not name.startswith(_LEFT_OUT)},
}
"""Columns of the answer: the picture's position, why it cannot be used (None: it can), and those of hands.parquet.
`status` tells whether the row is a hand; `vertices_cam_m` is None without the parameter `vertices`."""


def answer(pictures: Sequence[Any], params: Mapping[str, Any] | None, bundle: ModelBundle, assets: Path) -> list[Row]:
    """The rows for pictures (bytes, base64 text, paths, arrays: `predict.given`), with all of `COLUMNS`.

    A picture that cannot be used, or has no hands, gives one row with the reason. Raises PredictError for invalid
    parameters.
    """
    options = {name: default for name, (_, default) in PARAMETERS.items()}
    if unknown := sorted(set(params or {}) - set(options)):
        raise PredictError(f"params: {unknown[0]} is unknown; expected {', '.join(options)}")
    options |= dict(params or {})
    picture_options = PictureOptions(
        box=_numbers(options["box"]),
        side=options["side"],
        focal_px=options["focal_px"],
        intrinsics=_numbers(options["intrinsics"]),
        min_confidence=options["min_confidence"],
    )
    reconstruction = Reconstruction(bundle, options["method"], options["camera"], options["hypotheses"])
    named = [(f"image {position}", picture) for position, picture in enumerate(pictures)]
    empty = dict.fromkeys(COLUMNS)
    return [
        empty | {"input": position, "error": hands.error} | flat(row)
        for position, hands in enumerate(predict_each(named, reconstruction, picture_options, assets, base64_text=True))
        for row in hands.rows(options["vertices"])
    ]


def _numbers(values: Any) -> Any:
    """The values as a tuple; None if there are none."""
    return tuple(float(value) for value in values) if values is not None and len(values) else None
