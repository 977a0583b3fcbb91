"""The base of the configuration records: constrained number types, strictness, errors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, ValidationInfo, field_validator

from maskhand.errors import MaskhandError
from maskhand.path_names import path_name, path_names

PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]
"""Every library that draws takes one of 32 bits."""
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
PathName = Annotated[str, AfterValidator(path_name)]
SetName = Annotated[str, AfterValidator(path_names)]
"""DATASET/SPLIT."""
SetWeights = Annotated[dict[SetName, PositiveFloat], Field(min_length=1)]
"""Shard set -> sampling weight."""


class ConfigError(MaskhandError, ValueError):
    """A recipe or an override that cannot be used; the message names the key and what to do."""


class FrozenConfig(BaseModel):
    """An immutable record that refuses unknown keys; the docstring under a field becomes its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """`steps: true` would count as one step."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"expected a number or a text, found {str(value).lower()}")
        return value
