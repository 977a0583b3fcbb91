"""Handling of steps whose loss or gradient is not finite: they are skipped; too many in a row are an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskhand.errors import MaskhandError

_FIRST_SCALE = 2.0**10
_GROW_AFTER = 2000
"""Steps in a row after which fp16's loss scale doubles (as in torch.amp.GradScaler)."""


class NotFiniteError(MaskhandError, ArithmeticError):
    """Losses or gradients stay infinite or NaN; the message says where the batch was saved."""


class UpdateGuard:
    """Counts skipped steps, and scales the loss with fp16 so that small gradients do not vanish.

    keep: folder for the batch at which a run is stopped; None: it is not saved.
    """

    def __init__(self, most_skipped: int, scaled: bool, rank: int, keep: Path | None) -> None:
        self._most_skipped, self._rank, self._keep = most_skipped, rank, keep
        self.scaled = scaled
        """Whether there is a loss scale."""
        self._good = 0
        self._in_a_row = 0
        self.scale = _FIRST_SCALE if scaled else 1.0
        """Factor on the loss."""
        self.skipped = False
        """Whether the last step was skipped."""

    def after_step(self, step: int, applied: bool, loss: Tensor, inputs: Sequence[Any]) -> None:
        """Record whether step `step` (0-based) changed the weights (the same on all ranks); loss () and inputs are this
        rank's. Raises NotFiniteError after too many skipped steps in a row."""
        self.skipped = not applied
        if applied:
            self._in_a_row, self._good = 0, self._good + 1
            if self.scaled and self._good % _GROW_AFTER == 0:
                self.scale *= 2
            return
        self._in_a_row, self._good = self._in_a_row + 1, 0
        if self.scaled:
            self.scale /= 2
        if self._in_a_row > self._most_skipped:
            raise NotFiniteError(
                f"step {step + 1}: loss or gradient was not finite in {self._in_a_row} steps in a row "
                f"(engine.max_skipped={self._most_skipped}; the loss of rank {self._rank} was {float(loss):g}), no "
                f"weight was changed in them{self._kept(step, loss, inputs)}; a lower learning rate or clip, or other "
                "labels, may help"
            )

    def _kept(self, step: int, loss: Tensor, inputs: Sequence[Any]) -> str:
        if self._keep is None:
            return ""
        self._keep.mkdir(parents=True, exist_ok=True)
        path = self._keep / f"step-{step + 1:09d}-rank-{self._rank:05d}.pt"
        torch.save({"step": step, "loss": loss.cpu(), "inputs": [_plain(value) for value in inputs]}, path)
        return f". Its batch is in {path}"

    def state(self) -> dict[str, float]:
        """The state to store in a checkpoint."""
        return {"scale": self.scale, "good": self._good}

    def load(self, state: Mapping[str, float]) -> None:
        """Restore what `state` returned."""
        if self.scaled and state["scale"] != 1.0:
            self.scale, self._good = state["scale"], int(state["good"])


def _plain(value: Any) -> Any:
    """Tensors moved to the CPU, records converted to dictionaries: loadable with `weights_only`."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
