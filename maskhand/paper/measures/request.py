"""One benchmark of one row, ready to be measured."""

from __future__ import annotations

from dataclasses import dataclass

from maskhand.config import Recipe
from maskhand.device import accelerator
from maskhand.models.bundle import ModelBundle
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.progress import Progress
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class Request:
    """What a measure gets; it returns metric -> value."""

    workspace: Workspace
    recipe: Recipe
    metrics: tuple[str, ...]
    """Those that the row reports."""
    trained: str | None
    """Folder of the trained tokenizer or exported model; None for a row that trains nothing."""
    shard_set: str | None
    """`freihand/evaluation`; None for what reads no set."""
    generated: int
    """Hands to generate from nothing."""
    timed_iterations: tuple[int, ...]
    """Numbers of iterations that are timed in turns."""
    progress: Progress

    @property
    def folder(self) -> str:
        assert self.trained is not None, "only rows that train have a folder"
        return self.trained

    @property
    def set_name(self) -> str:
        assert self.shard_set is not None, "only some rows read a set"
        return self.shard_set

    @property
    def set_uri(self) -> str:
        return self.workspace.shard_set(self.set_name)

    def bundle(self) -> ModelBundle:
        """The row's model, on the accelerator where there is one."""
        return ModelBundle.load(self.folder, device=accelerator())

    def transformer(self) -> MaskedTransformer:
        network = self.bundle().model
        assert isinstance(network, MaskedTransformer), "rows that generate have tokens"
        return network
