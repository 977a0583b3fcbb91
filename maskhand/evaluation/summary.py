"""`evaluation.json`: what an evaluation found on its sets, as a record; and `result.json`, the part of one set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskhand import storage
from maskhand.errors import MaskhandError

SUMMARY = "evaluation.json"
"""Written last into the folder of an evaluation."""
SUBMISSION = "submission/"
"""Beginning of the names of files in a benchmark's official format."""


class SummaryError(MaskhandError, ValueError):
    """A file that is no summary of this version; the message says what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())

    @classmethod
    def read(cls, uri: str) -> Self:
        """The summary in a file. Raises SummaryError; MissingFileError where there is none."""
        try:
            return cls.model_validate_json(storage.read_bytes(uri))
        except ValidationError as error:
            first = error.errors()[0]
            raise SummaryError(
                f"{uri}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}; it was written by another "
                "version or damaged, measure the model again with `maskhand evaluate`"
            ) from None


class RowSummary(_Frozen):
    """One predictor on one set."""

    name: str
    """For people: `drawn codes, T=5 (4 passes)`."""
    key: str
    """For machines: `drawn_codes_T5`."""
    passes: int | None
    """Runs of the transformer; None for the mean pose."""
    failed: int
    metrics: dict[str, float | None]
    """By name, the unit at its end; None: the set has no ground truth for it."""

    @property
    def known(self) -> dict[str, float]:
        """The metrics that have a value."""
        return {name: value for name, value in self.metrics.items() if value is not None}


class SetSummary(_Frozen):
    """One shard set."""

    set: str
    """Its URI."""
    data_digest: str
    model_digest: str
    count: int
    """Samples."""
    with_joints: int
    with_mesh: int
    product: str
    """Name of the row of the estimator that the model uses."""
    gain_over_mean_pose: float | None
    """Of that estimator's PA-MPJPE, as a fraction of the mean pose's."""
    facts: dict[str, Any]
    """Box source, detector, inference settings and whatever else was fixed."""
    rows: tuple[RowSummary, ...]
    files: dict[str, str] | None = None
    """Name -> URI of what lies beside it; None in `result.json`, which is one of these files."""

    @model_validator(mode="after")
    def _has_its_product(self) -> Self:
        if self.product not in {row.name for row in self.rows}:
            raise ValueError(f"no row of its `product` {self.product!r} among `rows`")
        return self

    @property
    def product_row(self) -> RowSummary:
        return next(row for row in self.rows if row.name == self.product)

    def to_json(self) -> bytes:
        return _json(self.model_dump(exclude={"files"} if self.files is None else None))


class EvaluationSummary(_Frozen):
    """One model on its sets."""

    model: str
    """A path, or `models:/NAME/VERSION`."""
    model_digest: str
    page: str
    """URI of the report."""
    sets: Annotated[dict[str, SetSummary], Field(min_length=1)]
    """By name, `freihand/evaluation`; the promotion gate looks at the first."""

    @property
    def first(self) -> SetSummary:
        return next(iter(self.sets.values()))

    def to_json(self) -> bytes:
        return _json(self.model_dump())


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
