"""What a served model is asked, and the table that it answers: the columns of hands.parquet, a row per hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from maskhand.models.bundle import ModelBundle
from maskhand.placement import CAMERA_SOURCES
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.look import Asked, look
from maskhand.predict.records import METHODS, PredictError
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
"""Parameter of a call -> its type in MLflow's words, and its default; a list is one of numbers, empty where not given.
They hold for all pictures of the call."""

_NOT_ASKED = ("name", "frame", "time_s", "track", "seen", "body_hand")
"""Fields, or their first words, of films and of conventions that are not parameters."""
COLUMNS: Final[dict[str, pa.DataType]] = {
    "input": pa.int64(),
    "error": pa.string(),
    **{name: kind for name, kind in TABLE.items() if not name.startswith(_NOT_ASKED)},
}
"""Columns of the answer: the position of the picture, why it cannot be used (None: it can), and those of hands.parquet.
`status` says whether the row is a hand; `vertices_cam_m` is None without the parameter `vertices`."""


def answer(pictures: Sequence[Any], params: Mapping[str, Any] | None, bundle: ModelBundle, assets: Path) -> list[Row]:
    """The rows for pictures (bytes, base64 text, paths, arrays: `predict.given`), with all of `COLUMNS`.

    A picture that cannot be used is one row with its reason, one without hands another. Raises PredictError for
    parameters that no picture can be asked with.
    """
    options = {name: default for name, (_, default) in PARAMETERS.items()}
    if unknown := sorted(set(params or {}) - set(options)):
        raise PredictError(f"params: {unknown[0]} is unknown; expected {', '.join(options)}")
    options |= dict(params or {})
    for name, choices in (("method", METHODS), ("camera", CAMERA_SOURCES)):
        if options[name] not in choices:
            raise PredictError(f"params: {name} is {options[name]!r}; expected one of {', '.join(choices)}")
    if options["hypotheses"] < 0:
        raise PredictError(f"params: hypotheses is {options['hypotheses']}; expected 0 or more")
    asked = Asked(
        box=_numbers(options["box"]),
        side=options["side"],
        focal_px=options["focal_px"],
        intrinsics=_numbers(options["intrinsics"]),
        min_confidence=options["min_confidence"],
    )
    how = Reconstruction(bundle, options["method"], options["camera"], options["hypotheses"])
    named = [(f"image {position}", picture) for position, picture in enumerate(pictures)]
    empty = dict.fromkeys(COLUMNS)
    return [
        empty | {"input": position, "error": hands.error} | flat(row)
        for position, hands in enumerate(look(named, how, asked, assets, base64_text=True))
        for row in hands.rows(options["vertices"])
    ]


def _numbers(values: Any) -> Any:
    """As a tuple; None where there are none."""
    return tuple(float(value) for value in values) if values is not None and len(values) else None
