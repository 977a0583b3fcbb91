"""The configuration of a run: a recipe as frozen records that validate their values. `recipe_files` reads them.

The docstring under a field gives its meaning and unit; `recipes/base.yaml` repeats it beside the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from maskhand.config.data import AugmentConfig, DataConfig, KeypointConfig
from maskhand.config.fields import ConfigError, FrozenConfig, PathName, PositiveInt, Seed
from maskhand.config.model import BackboneConfig, ModelConfig, SamplerConfig, TextConfig, TokenizerConfig
from maskhand.config.training import (
    EngineConfig,
    LossConfig,
    MaskingConfig,
    OptimConfig,
    TokenizerLossConfig,
    TokenizerTrainConfig,
    TransformerTrainConfig,
)
from maskhand.digest import short_digest

__all__ = [
    "INFERENCE_SETTINGS",
    "AugmentConfig",
    "BackboneConfig",
    "ConfigError",
    "DataConfig",
    "EngineConfig",
    "EvaluateConfig",
    "HandConfig",
    "KeypointConfig",
    "LossConfig",
    "MaskingConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "SamplerConfig",
    "TextConfig",
    "TokenizerConfig",
    "TokenizerLossConfig",
    "TokenizerTrainConfig",
    "TransformerTrainConfig",
]

INFERENCE_SETTINGS = ("sampler.", "evaluate.", "model.pose2d_tolerance.")
"""Sections and keys of a recipe that may change after training: how a model decodes, which 2D poses it reads, and how
it is evaluated."""


class EvaluateConfig(FrozenConfig):
    """What an evaluation runs."""

    iterations: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 3, 5)
    """Iterations T of the paper's procedure, one row of the report each."""
    batch: PositiveInt = 64
    """Batch size, hands."""


class HandConfig(FrozenConfig):
    """The hand model."""

    layer: Literal["maskhand", "smplx"] = "maskhand"
    """Code of the hand layer: maskhand | smplx (2 to 4 times as slow, equal to 1e-6 m)."""


class Recipe(FrozenConfig):
    """Everything that decides the outcome of a run; `digest()` identifies it."""

    name: PathName
    """Name of the recipe, in run names and reports."""
    seed: Seed = 0
    """Seed of data order, augmentation, initialization and masking."""
    data: DataConfig
    """Shard sets, crops, 2D pose and augmentation."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Architecture of VQ-MANO (section 3.1)."""
    tokenizer_training: TokenizerTrainConfig
    """Training of VQ-MANO (section 3.1, supplement B)."""
    model: ModelConfig
    """Architecture of the network (section 3.2)."""
    training: TransformerTrainConfig
    """Training of the network (section 3.3)."""
    sampler: SamplerConfig = SamplerConfig()
    """Iterative decoding (section 3.4); the calibration may select another estimator."""
    hand: HandConfig = HandConfig()
    """Hand model."""
    engine: EngineConfig = EngineConfig()
    """Distributed training: Ray Train workers and DeepSpeed."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What an evaluation runs."""

    @model_validator(mode="after")
    def _hands_are_held_out_for_validation(self) -> Self:
        if self.training.validate_every and not self.data.held_out:
            raise ValueError("training.validate_every needs held-out hands; set data.held_out above 0")
        return self

    @model_validator(mode="after")
    def _posed_hands_have_no_caption(self) -> Self:
        if self.data.posed_hands and self.model.condition != "image":
            raise ValueError("data.posed_hands are for networks of images; set it to 0 where model.condition is text")
        return self

    def digest(self) -> str:
        """12 hex digits over every value."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return short_digest(text)

    def flat(self) -> dict[str, str]:
        """`{"model.dim": "64", ...}` for experiment trackers."""
        flat: dict[str, str] = {}

        def walk(prefix: str, value: Any) -> None:
            if isinstance(value, Mapping) and value:
                for key, inner in value.items():
                    walk(f"{prefix}.{key}" if prefix else str(key), inner)
            else:
                flat[prefix] = str(value)

        walk("", self.model_dump(mode="json"))
        return flat
