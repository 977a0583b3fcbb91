"""Records of runs and registered models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MODEL = "maskhand"
"""Name of the registered model that reads images."""
TEXT_MODEL = "maskhand-text"
"""Name of the one that reads captions: neither can stand in for the other, so each has a champion of its own."""
BUNDLE = "bundle"
"""Name of the model bundle among the artifacts of a registered model."""

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""KILLED: by a signal, such as Prefect's at a cancellation, or Ctrl-C."""


@dataclass(frozen=True)
class Lineage:
    """A dataset that went into a run."""

    name: str
    uri: str
    digest: str
    """Digest of the data, from the manifest."""


@dataclass(frozen=True)
class ModelVersion:
    name: str
    version: int

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Promotion:
    """What the gate decided about a model version."""

    version: ModelVersion
    aliases: tuple[str, ...]
    """Aliases that name this version now."""
    reason: str
    """A sentence; also kept as the version's tag `promotion`."""


@dataclass(frozen=True)
class TrackedRun:
    """A run of the past."""

    run_id: str
    started_ms: int
    """Since 1970."""
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    name: str = ""
    """As on MLflow's pages."""
    params: Mapping[str, str] = field(default_factory=dict)
    """The values of its recipe, by dotted key."""
